// The messages of one topic: from an offset on, or the newest, which can be followed.

import { h, setText, sync } from '../dom.js';
import { clock, date, dayName } from '../format.js';
import { Picture } from '../picture.js';
import { pretty } from './topics.js';

const FOLLOW_MS = 2000;
const LIMIT = 100;
const MOST = 500;

export function topic(root, { get, params, settle }, [name]) {
  let found = []; // newest first
  let cursor = null;
  let gone = false;
  let turn = 0;
  let timer = 0;

  const partition = h('input', { type: 'number', min: 0, step: 1, value: params.get('partition'), placeholder: 'all', 'aria-label': 'Partition', onchange: restart });
  const offset = h('input', { type: 'number', min: 0, step: 1, value: params.get('offset'), placeholder: 'newest', 'aria-label': 'From offset', onchange: restart });
  const search = h('input', { type: 'search', class: 'grow', value: params.get('q'), placeholder: 'In keys, headers and values', 'aria-label': 'Search messages', oninput: draw });
  const follow = h('input', { type: 'checkbox', id: 'follow', checked: params.get('follow') !== 'no', onchange: restart });
  const about = h('p', { class: 'muted', role: 'status' });
  const list = h('ul', { class: 'messages', 'aria-label': 'Messages, newest first' });
  const more = h('button', { type: 'button', class: 'read-on', hidden: true, onclick: next }, 'Read on');
  const picture = new Picture(list, { retry: restart });

  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/topics' }, 'Topics')), h('h1', { dir: 'auto' }, name), about)),
    h('div', { class: 'toolbar topic-bar' }, h('label', {}, 'Partition ', partition), h('label', {}, 'From offset ', offset), search, h('label', { for: 'follow' }, follow, ' Follow')),
    h('section', { class: 'panel', 'aria-label': 'Messages' }, picture.element, more, list),
  );

  const path = (values) => `/topic/${encodeURIComponent(name)}?${new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ''))}`;

  function restart() {
    found = [];
    cursor = null;
    params.set({ partition: partition.value, offset: offset.value, follow: follow.checked ? '' : 'no' });
    load();
  }

  async function load() {
    clearTimeout(timer);
    const mine = (turn += 1);
    try {
      const page = await get(path(cursor === null ? { partition: partition.value, offset: offset.value, limit: LIMIT } : { cursor, limit: LIMIT }));
      if (gone || mine !== turn) return;
      take(page);
      picture.truth();
      if (found.length === 0) picture.empty('There are no messages here.');
      draw();
    } catch (error) {
      if (gone || mine !== turn) return;
      if (error.status === 404) picture.empty(`${error.message}.`);
      else picture.failed(error, 'The messages');
    }
    settle();
    // From an offset on, the next page is read when it is asked for.
    if (follow.checked && offset.value === '') timer = setTimeout(load, FOLLOW_MS);
  }

  function take({ items, cursor: after }) {
    const known = new Set(found.map(key));
    found = [...items.filter((each) => !known.has(key(each))).reverse(), ...found].sort((one, other) => other.timestamp - one.timestamp || other.offset - one.offset).slice(0, MOST);
    if (offset.value !== '') cursor = after;
    more.hidden = offset.value === '' || after === null;
  }

  function next() {
    if (cursor !== null) load();
  }

  function draw() {
    const wanted = search.value.trim().toLowerCase();
    params.set({ q: search.value.trim() });
    const shown = wanted === '' ? found : found.filter((each) => JSON.stringify(each).toLowerCase().includes(wanted));
    setText(about, wanted === '' ? `${found.length} messages${found.length === MOST ? ', no more are kept here' : ''}` : `${shown.length} of the ${found.length} messages read`);
    sync(list, shown, key, row, () => null);
  }

  restart();
  return {
    destroy() {
      gone = true;
      clearTimeout(timer);
      picture.destroy();
    },
  };
}

const key = (each) => `${each.partition}:${each.offset}`;

function row(each) {
  const headers = Object.entries(each.headers);
  const box = h('details', {}, h('summary', {}, h('b', { class: 'mono' }, key(each)), ' ', h('time', {}, `${dayName(each.timestamp) === 'Today' ? '' : `${date(each.timestamp)} `}${clock(each.timestamp, true)}`), ' ', h('bdi', { class: 'muted' }, each.key ?? '')));
  // What is folded costs nothing until somebody opens it.
  box.addEventListener('toggle', () => {
    if (!box.open || box.childElementCount > 1) return;
    if (headers.length) box.append(h('dl', { class: 'headers' }, headers.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))));
    box.append(h('pre', { tabindex: 0 }, pretty(each.value)));
  });
  return h('li', {}, box);
}
