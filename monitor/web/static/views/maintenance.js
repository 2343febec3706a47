// Maintenance: what is under way and planned, a form for more, and the receivers with a test of each.

import { conditionOf } from '../conditions.js';
import { h, icon, setText, stateMark, sync } from '../dom.js';
import { isolated, now, rangeText } from '../format.js';
import { Picture } from '../picture.js';
import { title } from '../state.js';
import { Several, nameOf } from '../subjects.js';
import { tagsOf } from '../tags.js';
import { offerUndo } from '../undo.js';
import { localTime, timeOf } from '../until.js';

const REFRESH_MS = 15000;
const USUAL_S = 7200;

export function maintenance(root, { state, get, request, admin, params, settle }) {
  let gone = false;
  const failed = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const list = h('ul', { class: 'planned', 'aria-label': 'Maintenance' });
  const windows = h('ul', { class: 'planned' });
  const receivers = h('ul', { class: 'planned' });
  const picture = new Picture(list, { retry: load });
  const windowPicture = new Picture(windows, { retry: load });
  const receiverPicture = new Picture(receivers, { retry: loadReceivers });
  const condition = state.has('incidents') ? null : conditionOf(state, 'past');

  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/incidents' }, 'Incidents')), h('h1', {}, 'Maintenance and receivers'), h('p', { class: 'muted' }, 'Nobody is notified of what happens in maintenance; what is still wrong at its end is sent then.'))),
    h(
      'div',
      { class: 'stack' },
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Under way and planned')), failed, picture.element, list),
      h('div', { class: 'stack side-by-side' }, admin() ? form() : h('p', { class: 'muted' }, 'To plan maintenance, log in with the token of an administrator.'), h('div', { class: 'stack' },
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Each week'), h('span', { class: 'more muted' }, 'from the config')), windowPicture.element, windows),
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Receivers')), receiverPicture.element, receivers))),
    ),
  );

  // What there is

  async function load() {
    if (!state.has('incidents')) {
      for (const each of [picture, windowPicture, receiverPicture]) each.of(condition ?? { kind: 'empty', words: 'Alerts are off here: the config has no section alerts.' });
      settle();
      return;
    }
    try {
      const { items } = await get('/silence');
      if (gone) return;
      items.sort((one, other) => one.starts_at - other.starts_at);
      if (items.length === 0) picture.empty('No maintenance is under way or planned.');
      else picture.truth();
      sync(list, items, (each) => `${each.id} ${each.starts_at > now()}`, silenceRow);
    } catch (error) {
      if (!gone) picture.failed(error, 'The maintenance');
    }
    try {
      const { items } = await get('/maintenance');
      if (gone) return;
      if (items.length === 0) windowPicture.empty('The config has no maintenance windows.');
      else windowPicture.truth();
      sync(windows, items, (each) => `${each.name} ${each.begins_at} ${each.begins_at > now()}`, (each) => row(each, each.begins_at, each.ends_at, h('b', {}, each.name)));
    } catch (error) {
      if (!gone) elsewhere(error, windowPicture, 'The maintenance windows');
    }
    settle();
  }

  async function loadReceivers() {
    if (!state.has('incidents')) return;
    try {
      const { items } = await get('/alert/receiver');
      if (gone) return;
      if (items.length === 0) receiverPicture.empty('The config has no receivers: nobody is notified.');
      else receiverPicture.truth();
      sync(receivers, items, (each) => each.name, receiverRow);
    } catch (error) {
      if (!gone) elsewhere(error, receiverPicture, 'The receivers');
    }
  }

  /** Only the daemon with the alerts part knows its config. */
  function elsewhere(error, where, what) {
    if (error.status === 404) where.empty('Alerts are sent by another daemon; its config has them.');
    else where.failed(error, what);
  }

  function row({ match }, from, until, what, ...acts) {
    const isNow = from <= now();
    return h('li', {}, h('span', { class: 'state stopped' }, icon(isNow ? 'stopped' : 'late'), isNow ? 'under way' : 'planned'), h('div', { class: 'what' }, h('p', {}, what, what ? ' ' : '', h('bdi', {}, words(match))), h('p', { class: 'muted' }, rangeText(from, until))), h('div', { class: 'acts' }, ...acts));
  }

  /** Whom a match is of, in words. */
  function words(match) {
    const found = [];
    if (match.jobs.length) found.push(match.jobs.map((id) => (state.jobs.has(id) ? isolated(title(state.jobs.get(id))) : `site ${id}`)).join(', '));
    if (match.tags.length) found.push(`sites tagged ${match.tags.join(' or ')}`);
    for (const [key, text] of [['sender', 'the logs of'], ['subject', 'the subject'], ['rule', 'the rule']]) if (match[key] !== null) found.push(`${text} ${match[key]}`);
    return found.join(', ') || 'everything';
  }

  function silenceRow(each) {
    const end = h('button', { type: 'button', onclick: () => endNow(each, end) }, each.starts_at > now() ? 'Cancel' : 'End now');
    const what = each.comment ? h('b', { dir: 'auto' }, each.comment) : '';
    return row(each, each.starts_at, each.until, what, h('span', { class: 'muted' }, `by ${each.created_by}`), admin() ? end : '');
  }

  async function endNow(each, button) {
    button.disabled = true;
    failed.hidden = true;
    try {
      await request('DELETE', `/silence/${each.id}`);
      offerUndo('The maintenance is ended.', async () => {
        await request('POST', '/silence', { from: each.starts_at, until: each.until, match: each.match, comment: each.comment });
        load();
      });
      await load();
    } catch (error) {
      setText(failed, `That did not work: ${error.message}.`);
      failed.hidden = false;
    }
    button.disabled = false;
  }

  function receiverRow({ name }) {
    const said = h('p', { class: 'muted', role: 'status' });
    const button = h('button', { type: 'button', 'aria-label': `Send a test to ${name}`, onclick: test }, 'Send a test');
    async function test() {
      button.disabled = true;
      setText(said, 'Sending…');
      try {
        const found = await request('POST', `/alert/test?${new URLSearchParams({ receiver: name })}`);
        said.replaceChildren(...found.answers.flatMap((each, i) => [i ? h('br') : '', stateMark(each.accepted ? 'up' : 'down', each.accepted ? 'accepted' : 'not accepted'), h('bdi', {}, ` ${each.said}`)]));
      } catch (error) {
        setText(said, `The test was not sent: ${error.message}.`);
      }
      button.disabled = false;
    }
    return h('li', {}, h('div', { class: 'what' }, h('b', { dir: 'auto' }, name), said), h('div', { class: 'acts' }, admin() ? button : ''));
  }

  // The form

  function form() {
    const asked = Number(params.get('site'));
    const kinds = [['jobs', 'some sites'], ['tags', 'sites with a tag'], ['all', 'everything']];
    const kind = h('select', { id: 'of', onchange: () => showKind() }, kinds.map(([value, text]) => h('option', { value }, text)));
    const sites = new Several('Sites', () => [...state.jobs.values()].map((job) => [String(job.id), nameOf(job)]), asked && state.jobs.has(asked) ? [String(asked)] : []);
    const tagChoice = new Several('Tags', () => tagsOf(state.jobs.values()).map((tag) => [tag, tag]));
    const from = h('input', { id: 'from', type: 'datetime-local', value: localTime(now()) });
    const until = h('input', { id: 'until', type: 'datetime-local', value: localTime(now() + USUAL_S) });
    const comment = h('input', { id: 'comment', type: 'text', maxlength: 1000, autocomplete: 'off' });
    const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
    const button = h('button', { class: 'primary', type: 'submit' }, 'Plan maintenance');
    const field = (label, input, text = '') => h('div', { class: 'field' }, h('label', { for: input.id }, label), input, text ? h('p', { class: 'field-text' }, text) : '');
    const box = h(
      'form',
      { class: 'panel editor', 'aria-label': 'Plan maintenance', novalidate: true, onsubmit: save },
      h('h2', {}, 'Plan maintenance'),
      field('Of', kind),
      sites.element,
      tagChoice.element,
      h('div', { class: 'two' }, field('From', from), field('Until', until)),
      field('What for', comment, 'shown on this page; the public status page shows only the times'),
      problem,
      h('div', { class: 'actions' }, button),
    );
    showKind();

    function showKind() {
      sites.element.hidden = kind.value !== 'jobs';
      tagChoice.element.hidden = kind.value !== 'tags';
    }

    function wrong(text, input) {
      setText(problem, text);
      problem.hidden = text === '';
      input?.focus();
      return false;
    }

    function given() {
      const chosen = kind.value === 'jobs' ? sites : kind.value === 'tags' ? tagChoice : null;
      chosen?.take();
      if (chosen && chosen.values.length === 0) return wrong(kind.value === 'jobs' ? 'Choose the sites.' : 'Choose a tag.', chosen.input);
      if (Number.isNaN(timeOf(from))) return wrong('Enter when it begins.', from);
      if (!(timeOf(until) > Math.max(now(), timeOf(from)))) return wrong('The end must be after the beginning, and still to come.', until);
      wrong('');
      const match = kind.value === 'jobs' ? { jobs: sites.values.map(Number) } : kind.value === 'tags' ? { tags: tagChoice.values } : {};
      return { from: timeOf(from), until: timeOf(until), match, comment: comment.value.trim() };
    }

    async function save(event) {
      event.preventDefault();
      const silence = given();
      if (!silence) return;
      button.disabled = true;
      try {
        const made = await request('POST', '/silence', silence);
        comment.value = '';
        sites.clear();
        tagChoice.clear();
        offerUndo('The maintenance is planned.', async () => {
          await request('DELETE', `/silence/${made.id}`);
          load();
        });
        await load();
      } catch (error) {
        wrong(`That did not work: ${error.message}.`);
      }
      button.disabled = false;
    }
    return box;
  }

  load();
  loadReceivers();
  const timer = setInterval(load, REFRESH_MS);
  return {
    destroy() {
      gone = true;
      clearInterval(timer);
      for (const each of [picture, windowPicture, receiverPicture]) each.destroy();
    },
  };
}
