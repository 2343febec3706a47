// A form made from the JSON schema of an object: a field for each key, and its error below it.

import { h } from './dom.js';

const SHORT = new Set(['ca', 'http', 'ip', 'json', 'tls', 'url']);

/** A field of a key: {element, value(), touched(), fail(words)}. */
export function fieldOf(key, schema, value, { hidden = false, required = false } = {}) {
  const make = control(schema);
  const id = `key-${key}`;
  const input = make.input(value, hidden);
  input.id = id;
  input.setAttribute('aria-describedby', `${id}-text ${id}-error`);
  if (required) input.required = true;
  const error = h('p', { class: 'field-error', id: `${id}-error`, hidden: true });
  const text = h('p', { class: 'field-text', id: `${id}-text` }, [schema.description.replace(/^s\b/, 'seconds'), make.hint].filter(Boolean).join('; '));
  const label = h('label', { for: id }, labelOf(key));
  const element = h('div', { class: `field ${make.kind}`, 'data-key': key }, ...(make.kind === 'yes-no' ? [input, label] : [label, input]), text, error);
  let touched = false;
  for (const event of ['input', 'change']) {
    input.addEventListener(event, () => {
      touched = true;
      fail('');
    });
  }
  function fail(words) {
    error.textContent = words;
    error.hidden = words === '';
    if (words) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  }
  return { key, element, input, value: () => make.read(input), touched: () => touched, fail };
}

/** A key in words: "URL", "Body regexp". */
export function labelOf(key) {
  const words = key.split('_').map((word) => (SHORT.has(word) ? word.toUpperCase() : word)).join(' ');
  return words[0].toUpperCase() + words.slice(1);
}

/** How a value of this schema is shown and read; read() gives null for nothing. */
function control(schema) {
  const options = schema.anyOf ? schema.anyOf.filter((each) => each.type !== 'null') : [schema];
  const choices = [...new Set(options.flatMap((each) => each.enum ?? []).map(String))];
  if (choices.length) return select(choices);
  const [first] = options;
  switch (first.type) {
    case 'boolean':
      return { kind: 'yes-no', input: (value) => h('input', { type: 'checkbox', checked: value === true }), read: (input) => input.checked };
    case 'integer':
    case 'number':
      return { kind: 'number', input: (value) => h('input', { type: 'number', step: first.type === 'integer' ? 1 : 'any', min: first.minimum, max: first.maximum, value: value ?? '' }), read: number };
    case 'array':
      return first.items?.type === 'object' || first.items?.$ref ? json() : lines(first.items);
    case 'object':
      return first.additionalProperties ? pairs() : json();
    case 'string':
      return { kind: 'text', input: (value, hidden) => h('input', { type: 'text', value: value ?? '', placeholder: hidden ? 'hidden; stays as it is' : null, spellcheck: 'false', autocomplete: 'off' }), read: (input) => input.value || null };
    default:
      return json();
  }
}

function number(input) {
  if (input.validity.badInput) throw new Error('expected a number');
  return input.value === '' ? null : Number(input.value);
}

function select(choices) {
  return {
    kind: 'choice',
    input: (value) => h('select', {}, choices.map((each) => h('option', { value: each, selected: each === String(value) }, each))),
    read: (input) => input.value,
  };
}

function area(value, hidden, rows = 2) {
  const input = h('textarea', { rows, spellcheck: 'false', placeholder: hidden ? 'hidden; stays as it is' : null });
  input.value = value;
  return input;
}

const filled = (input) => input.value.split('\n').map((line) => line.trim()).filter((line) => line !== '');

function lines(items) {
  const whole = items?.type === 'integer';
  return {
    kind: 'lines',
    hint: 'one in a line',
    input: (value, hidden) => area((value ?? []).join('\n'), hidden, Math.max(1, (value ?? []).length)),
    read: (input) => filled(input).map((line) => (whole && /^\d+$/.test(line) ? Number(line) : line)),
  };
}

function pairs() {
  return {
    kind: 'lines',
    hint: '“name: value”, one in a line',
    input: (value, hidden) => area(Object.entries(value ?? {}).map(([name, each]) => `${name}: ${each}`).join('\n'), hidden),
    read: (input) =>
      Object.fromEntries(
        filled(input).map((line) => {
          const at = line.indexOf(':');
          if (at < 1) throw new Error(`“${line}” is not “name: value”`);
          return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
        }),
      ),
  };
}

function json() {
  return {
    kind: 'lines',
    hint: 'as JSON',
    input: (value, hidden) => area(value === null || value === undefined ? '' : JSON.stringify(value), hidden, 3),
    read(input) {
      if (input.value.trim() === '') return null;
      try {
        return JSON.parse(input.value);
      } catch {
        throw new Error('is not JSON');
      }
    },
  };
}
