// One sender of logs: what happened while it said what it said.

import { h, sync } from '../dom.js';
import { clock, date } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';
import { link } from '../route.js';
import { TimelinePanel } from '../timeline.js';

const LINES = 50;
const REFRESH_MS = 15000;

export function sender(root, context, [name]) {
  const { state, get, settle } = context;
  let gone = false;
  const timeline = new TimelinePanel(context, { sender: name }, { span: 21600 });
  const open = state.has('incidents') ? new IncidentList(context, { wanted: (each) => each.watch === 'logs' && each.subject === name, title: 'Open incidents of this sender' }) : null;
  const body = h('tbody', {});
  const box = h(
    'div',
    { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Last errors' },
    h('table', { class: 'table' }, h('thead', {}, h('tr', {}, ...['Time', 'Level', 'Message'].map((text) => h('th', { scope: 'col' }, text)))), body),
  );
  const picture = new Picture(box, { retry: load, words: 'Loading the errors…' });
  root.append(
    h(
      'div',
      { class: 'title' },
      h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/logs' }, 'Logs')), h('h1', { dir: 'auto' }, name)),
      h('div', { class: 'actions' }, h('a', { class: 'button', href: link('logs', { sender: name }) }, 'All its entries')),
    ),
    ...(open ? [open.element] : []),
    h('div', { class: 'apart' }, timeline.element),
    h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Last errors')), picture.element, box),
  );

  async function load() {
    try {
      const found = await get(`/log?${new URLSearchParams({ sender: name, min_level: 'error', limit: LINES })}`);
      if (gone) return;
      if (found.logs.length === 0) picture.empty('No error of this sender is kept.');
      else picture.truth();
      sync(
        body,
        found.logs.map((entry, i) => ({ ...entry, key: `${entry.time} ${entry.message} ${found.logs.slice(0, i).filter((each) => each.time === entry.time && each.message === entry.message).length}` })),
        (entry) => entry.key,
        (entry) => h('tr', {}, h('td', { class: 'nowrap' }, `${date(entry.time)} ${clock(entry.time, true)}`), h('td', {}, entry.level), h('td', { class: 'long' }, h('bdi', {}, entry.message))),
      );
      settle();
    } catch (error) {
      if (!gone) picture.failed(error, 'The errors');
    }
  }

  load();
  const timer = setInterval(load, REFRESH_MS);
  return {
    update(kinds) {
      open?.update(kinds);
      timeline.update(kinds);
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      timeline.destroy();
      picture.destroy();
    },
  };
}
