// The form of a site: a new one, a change, or a copy. Its fields come from the kinds' own keys.

import { address } from '../api.js';
import { h, setText } from '../dom.js';
import { isolated } from '../format.js';
import { Picture } from '../picture.js';
import { fieldOf } from '../schema-form.js';
import { whyNot } from '../site-actions.js';
import { title } from '../state.js';
import { offerUndo } from '../undo.js';

const ALWAYS = ['name', 'url', 'interval', 'timeout', 'tags'];

export function editor(root, { state, get, request, admin }, [id, what = 'new']) {
  const jobId = id === 'new' ? null : Number(id);
  const heading = h('h1', { dir: 'auto' });
  const crumb = h('a', { dir: 'auto' });
  const back = jobId === null ? '#/sites' : `#/sites/${jobId}`;
  const form = h('form', { class: 'panel editor', novalidate: true, onsubmit: save });
  const picture = new Picture(form, { retry: load });
  let gone = false;
  let kinds = null;
  let known = { keys: {}, hidden: [] };
  let fields = [];
  let problem = null;
  let button = null;

  crumb.setAttribute('href', back);
  sayName();
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, crumb), heading)),
    picture.element,
    form,
  );

  /** The sites may come after the form. */
  function sayName() {
    const job = state.jobs.get(jobId);
    const name = job === undefined ? `site ${jobId}` : isolated(title(job));
    setText(crumb, jobId === null ? 'Sites' : name);
    setText(heading, { new: 'Add a site', edit: `Edit ${name}`, copy: `Copy ${name}` }[what]);
  }

  async function load() {
    const why = whyNot(state, admin);
    if (why !== null) {
      picture.refused(why);
      return;
    }
    try {
      kinds = await get('/job-kind');
      if (jobId !== null) known = await get(`/job/${jobId}/keys`);
    } catch (error) {
      if (!gone) picture.failed(error, 'The form');
      return;
    }
    if (gone) return;
    draw(known.keys.kind ?? 'http');
    picture.truth();
    fields[0]?.input.focus();
  }

  function draw(kind) {
    const { schema, summary, schemes, common } = kinds.kinds.find((each) => each.kind === kind);
    const typed = new Map(fields.filter((each) => each.touched()).map((each) => [each.key, each]));
    fields = Object.entries(schema.properties)
      .filter(([key]) => key !== 'kind')
      .map(([key, each]) => {
        const value = key in known.keys ? known.keys[key] : each.default;
        const given = what === 'copy' && key === 'name' && value ? `${value} (copy)` : value;
        const text = key === 'url' ? { ...each, description: `${each.description}; ${schemes.map((scheme) => `${scheme}://`).join(' or ')}` } : each;
        return fieldOf(key, text, given, { hidden: known.hidden.includes(key) && key !== 'url', required: schema.required.includes(key) });
      });
    // What was typed stays if another kind is chosen.
    for (const field of fields) {
      const before = typed.get(field.key);
      if (!before || before.input.tagName !== field.input.tagName) continue;
      if (field.input.type === 'checkbox') field.input.checked = before.input.checked;
      else field.input.value = before.input.value;
      field.input.dispatchEvent(new Event('input'));
    }
    const first = fields.filter((each) => ALWAYS.includes(each.key));
    const own = fields.filter((each) => !common.includes(each.key));
    const rest = fields.filter((each) => common.includes(each.key) && !ALWAYS.includes(each.key));
    const choice = h('select', { id: 'kind', disabled: jobId !== null, onchange: () => draw(choice.value) }, kinds.kinds.map((each) => h('option', { value: each.kind, selected: each.kind === kind }, each.kind)));
    const refocus = form.contains(document.activeElement) && document.activeElement.id === 'kind';
    problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
    button = h('button', { class: 'primary', type: 'submit' }, { new: 'Add', edit: 'Save', copy: 'Add the copy' }[what]);
    form.replaceChildren(
      h('div', { class: 'field choice' }, h('label', { for: 'kind' }, 'Kind'), choice, h('p', { class: 'field-text' }, summary)),
      ...first.map((each) => each.element),
      own.length ? h('details', { open: own.some(isSet) }, h('summary', {}, `More of ${kind}`), ...own.map((each) => each.element)) : '',
      h('details', { open: rest.some(isSet) }, h('summary', {}, 'More'), ...rest.map((each) => each.element)),
      problem,
      h('div', { class: 'actions' }, button, h('a', { class: 'button', href: back }, 'Cancel')),
    );
    form.dataset.kind = kind;
    if (refocus) choice.focus();

    function isSet(field) {
      return field.touched() || known.hidden.includes(field.key) || (field.key in known.keys && JSON.stringify(known.keys[field.key]) !== JSON.stringify(schema.properties[field.key].default));
    }
  }

  /** The keys to send: those that were touched, and a copy's new name. */
  function given() {
    const found = {};
    for (const field of fields) {
      if (!field.touched() && !(what === 'copy' && field.key === 'name')) continue;
      try {
        found[field.key] = field.value();
      } catch (error) {
        throw Object.assign(error, { key: field.key });
      }
      if (found[field.key] === null && what !== 'edit') delete found[field.key];
    }
    return found;
  }

  async function save(event) {
    event.preventDefault();
    problem.hidden = true;
    for (const field of fields) field.fail('');
    button.disabled = true;
    try {
      await send(given());
    } catch (error) {
      tell(error);
    }
    button.disabled = false;
  }

  async function send(keys) {
    if (what === 'edit') {
      if (Object.keys(keys).length) {
        state.learn(await request('PATCH', `/job/${jobId}`, keys));
        offerUndo('The site is changed.', async () => state.learn(await request('POST', `/job/${jobId}/undo`)));
      }
      location.hash = back;
      return;
    }
    const made = await (what === 'copy' ? request('POST', `/job/${jobId}/copy`, keys) : request('POST', '/job', { kind: form.dataset.kind, ...keys }));
    state.learn(made);
    offerUndo('The site is added.', async () => {
      await request('DELETE', `/job/${made.id}`);
      location.hash = '#/sites';
    });
    if (made.kind === 'heartbeat') await showKey(made);
    else location.hash = `#/sites/${made.id}`;
  }

  /** The key of heartbeats is shown once: it must be seen first. */
  async function showKey(made) {
    const key = made.key ?? (await request('POST', `/job/${made.id}/key`)).key;
    const link = address(`/heartbeat/${key}`);
    const done = h('a', { class: 'button primary', href: `#/sites/${made.id}` }, 'Go to the site');
    form.replaceChildren(
      h('h2', {}, 'The address to report to'),
      h('p', {}, 'Its key is shown only now. A job that reports needs no other token:'),
      h('pre', { class: 'mono', tabindex: 0 }, `curl -fsS "${link}"`),
      h('div', { class: 'actions' }, done),
    );
    done.focus();
  }

  /** Say what is wrong at its field, or above the button. */
  function tell(error) {
    const [, named, words] = /^body\.([a-z_]+)[^:]*: (.*)$/s.exec(error.message) ?? [];
    const field = fields.find((each) => each.key === (error.key ?? named));
    if (field === undefined) {
      setText(problem, `That did not work: ${error.message}.`);
      problem.hidden = false;
      return;
    }
    field.fail(named ? words : error.message);
    const folded = field.element.closest('details');
    if (folded) folded.open = true;
    field.input.focus();
  }

  load();
  return {
    update(kinds) {
      if (kinds.has('list')) sayName();
    },
    destroy() {
      gone = true;
      picture.destroy();
    },
  };
}
