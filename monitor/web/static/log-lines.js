// One log entry as a row: control characters made visible, JSON readable, what was searched marked.

import { h, setText } from './dom.js';
import { clock, count, date, dayName } from './format.js';
import { link } from './route.js';

const CUT = 1200;
const MOST_JSON = 200000;

/** A short name of an entry, which a link to it has. */
export function nameOf(entry) {
  // FNV-1a, 32 bits.
  let hash = 0x811c9dc5;
  for (const letter of `${entry.sender}\0${entry.level}\0${entry.message}`) {
    hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  }
  return (hash >>> 0).toString(36);
}

/** The address of an entry among those around it. */
export const placeOf = (entry, more = {}) => link('logs', { kind: entry.kind === 'notification' && entry.kind, around: entry.time, line: nameOf(entry), ...more });

// Letters without a shape of their own, or that change the order or colour of their neighbours.
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/;

function shownControl(letter) {
  const code = letter.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x7f ? '␡' : `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}

/** Text whose control characters are shown as signs, and do nothing. */
export function harmless(text) {
  if (!CONTROL.test(text)) return [text];
  return text.split(new RegExp(`(${CONTROL.source})`)).filter((piece) => piece !== '').map((piece) =>
    piece.length === 1 && CONTROL.test(piece) ? h('span', { class: 'control', title: `U+${piece.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}` }, shownControl(piece)) : piece,
  );
}

/** The text with what was searched for marked. */
function marked(text, needle) {
  if (needle === '') return harmless(text);
  const pieces = [];
  const low = text.toLowerCase();
  const wanted = needle.toLowerCase();
  // A letter that has another length in lower case would shift the marks.
  if (low.length !== text.length) return harmless(text);
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    pieces.push(...harmless(text.slice(from, at)), h('mark', {}, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...pieces, ...harmless(text.slice(from))];
}

/** The value of a message that is a JSON object or list, or undefined. */
function jsonOf(text) {
  const first = text.trimStart()[0];
  if ((first !== '{' && first !== '[') || text.length > MOST_JSON) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** JSON on one line or several, its keys and values told apart. */
function readable(value, indent) {
  const text = JSON.stringify(value, null, indent);
  const pieces = [];
  let from = 0;
  for (const found of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/g)) {
    pieces.push(...harmless(text.slice(from, found.index)));
    const kind = found[2] !== undefined ? 'key' : found[1] !== undefined ? 'text' : 'value';
    pieces.push(h('span', { class: `json-${kind}` }, ...harmless(found[1] ?? found[0])), found[2] ?? '');
    from = found.index + found[0].length;
  }
  return [...pieces, ...harmless(text.slice(from))];
}

/** Make a row; `onsender` is called with a sender to look at, `ontoggle` when its height changes. */
export function lineRow(entry, { needle, mark, onsender, ontoggle }) {
  const day = dayName(entry.time);
  const toggle = h('button', { class: 'quiet open', type: 'button', 'aria-expanded': 'false', 'aria-label': 'Details', onclick: () => flip() }, '▸');
  const message = h('bdi', { class: 'message' });
  const details = h('div', { class: 'line-details', hidden: true });
  const row = h(
    'li',
    { class: `${entry.level}${mark ? ' marked' : ''}`, 'data-key': entry.key },
    toggle,
    h('a', { class: 'time', href: placeOf(entry), title: `${date(entry.time)} ${clock(entry.time, true)}: what was logged around it` }, h('time', { datetime: new Date(entry.time * 1000).toISOString() }, day === 'Today' ? clock(entry.time, true) : `${date(entry.time).slice(5)} ${clock(entry.time)}`)),
    h('span', { class: `level ${entry.level}` }, entry.level),
    h('button', { class: 'sender', type: 'button', title: `${entry.sender}: only this sender`, onclick: () => onsender(entry.sender) }, h('bdi', {}, ...harmless(entry.sender))),
    message,
    details,
  );

  function draw() {
    const value = jsonOf(entry.message);
    const isCut = !entry.open && entry.message.length > CUT;
    const pieces = value !== undefined && entry.open ? readable(value, 2) : value !== undefined && !isCut && needle === '' ? readable(value) : marked(isCut ? entry.message.slice(0, CUT) : entry.message, needle);
    message.replaceChildren(...pieces, ...(isCut ? [h('span', { class: 'muted' }, ` … ${count(entry.message.length - CUT)} more characters`)] : []));
    toggle.setAttribute('aria-expanded', String(entry.open === true));
    setText(toggle, entry.open ? '▾' : '▸');
    details.hidden = !entry.open;
    if (entry.open && details.childElementCount === 0) {
      const copy = h('button', { type: 'button', onclick: () => copyText(copy, new URL(placeOf(entry), location.href).href) }, 'Copy link');
      const raw = h('button', { type: 'button', onclick: () => copyText(raw, entry.message) }, 'Copy message');
      details.append(
        h('span', {}, `${date(entry.time)} ${clock(entry.time, true)}`),
        h('a', { href: placeOf(entry) }, 'Around this line'),
        h('a', { href: placeOf(entry, { sender: entry.sender }) }, 'Around it, this sender only'),
        copy,
        raw,
      );
    }
  }

  function flip() {
    entry.open = !entry.open;
    draw();
    ontoggle(entry);
  }

  draw();
  return row;
}

async function copyText(button, text) {
  const before = button.textContent;
  let words = 'Copied';
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    words = 'Not allowed here';
  }
  setText(button, words);
  setTimeout(() => setText(button, before), 1500);
}
