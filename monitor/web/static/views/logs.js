// Log entries and notifications: filters, search, live tail, pause and export.

import { h, segments, setText } from '../dom.js';
import { clock, date, dayName } from '../format.js';

const KEPT = 2000;
const PAGE = 300;
const LEVELS = ['debug', 'info', 'warning', 'error', 'critical'];

export function logs(root, { live, get }) {
  let kind = 'log';
  let entries = []; // newest first
  let held = [];
  let paused = false;
  let gone = false;
  let asked = 0;
  let anew = true; // whether to load everything again, also on a paused page
  let waiting = false; // whether there are notifications that a paused page does not show
  let loading = false;
  let stale = false;
  let typing = 0;
  let cursor = null;

  const level = h('select', { 'aria-label': 'Least level', onchange: begin }, h('option', { value: '' }, 'All levels'), LEVELS.slice(1).map((name) => h('option', { value: name }, name === 'critical' ? 'critical' : `${name} and worse`)));
  const sender = h('input', { type: 'search', placeholder: 'Sender', 'aria-label': 'Sender, exactly', size: 12, oninput: soon });
  const search = h('input', { class: 'grow', type: 'search', placeholder: 'Search messages', 'aria-label': 'Search messages', oninput: soon });
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => setPaused(!paused) }, 'Pause');
  const save = h('button', { type: 'button', onclick: exportAll }, 'Export');
  const about = h('p', { class: 'muted', role: 'status' });
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const more = h('button', { class: 'held', type: 'button', hidden: true, onclick: () => setPaused(false) });
  const list = h('ol', { class: 'log' });
  const empty = h('p', { class: 'empty' });
  const older = h('button', { type: 'button', hidden: true, onclick: loadOlder }, 'Older entries');
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Logs'), about)),
    h(
      'div',
      { class: 'toolbar' },
      segments('What', [['log', 'Log entries'], ['notification', 'Notifications']], kind, (value) => {
        kind = value;
        begin();
      }),
      search,
      sender,
      level,
      pause,
      save,
    ),
    problem,
    h('div', { class: 'panel' }, more, list, empty),
    h('p', { class: 'toolbar' }, older),
  );

  function filters() {
    const found = {};
    if (level.value) found.min_level = level.value;
    if (sender.value.trim()) found.sender = sender.value.trim();
    if (search.value.trim()) found.contains = search.value.trim();
    return found;
  }

  function soon() {
    clearTimeout(typing);
    typing = setTimeout(begin, 250);
  }

  /** Load again: first follow new entries, then fetch the earlier ones. */
  function begin() {
    asked += 1;
    held = [];
    waiting = stale = loading = false;
    anew = true;
    more.hidden = true;
    if (kind === 'log') {
      live.send({ watch: [] });
      live.send({ action: 'followLogs', id: 'follow', ...filters() });
      load();
    } else {
      live.send({ action: 'unfollowLogs', id: 'unfollow' });
      // Its answer, and whatever comes later, says to load them.
      live.send({ watch: ['notifications'] });
    }
  }

  async function load(page = null) {
    const mine = (asked += 1);
    loading = true;
    try {
      const query = new URLSearchParams({ limit: PAGE, ...filters(), ...(page ? { cursor: page } : {}) });
      const found = await get(`/${kind}?${query}`);
      if (gone || mine !== asked) return;
      const fresh = kind === 'log' ? found.logs : found.notifications;
      if (page) entries.push(...fresh);
      else if (anew || !goesOn(fresh)) entries = fresh;
      if (page || entries === fresh) cursor = found.cursor;
      anew = false;
      problem.hidden = true;
      draw();
    } catch (error) {
      if (gone || mine !== asked) return;
      problem.textContent = `The ${kind === 'log' ? 'logs' : 'notifications'} cannot be shown: ${error.message}.`;
      problem.hidden = false;
    }
    loading = false;
    if (waiting && !paused) again();
  }

  /** Load what is new; not while it is loaded already, or there would be no end to it. */
  function again() {
    waiting = loading;
    if (!loading) load();
  }

  /** Put the newest page before the older ones that are here, where it reaches them. */
  function goesOn(fresh) {
    const end = fresh.length ? entries.map(identity).indexOf(identity(fresh.at(-1))) : -1;
    if (end < 0 || fresh.length + entries.length > KEPT) return false;
    entries = [...fresh, ...entries.slice(end + 1)];
    return true;
  }

  function loadOlder() {
    load(cursor);
  }

  function take(fresh) {
    if (paused) {
      held = [...fresh, ...held].slice(0, KEPT);
      more.hidden = false;
      setText(more, `${held.length}${held.length === KEPT ? ' or more' : ''} new ${held.length === 1 ? 'entry' : 'entries'} – show`);
      return;
    }
    const known = new Set(entries.slice(0, 2 * fresh.length + 50).map(identity));
    const added = fresh.filter((entry) => !known.has(identity(entry)));
    entries = [...added, ...entries].slice(0, KEPT);
    list.prepend(...added.map(line));
    while (list.childElementCount > KEPT) list.lastChild.remove();
    describe();
  }

  function setPaused(value) {
    paused = value;
    pause.setAttribute('aria-pressed', String(paused));
    setText(pause, paused ? 'Resume' : 'Pause');
    pause.className = paused ? 'primary' : '';
    if (!paused) {
      more.hidden = true;
      const fresh = held;
      held = [];
      if (fresh.length) take(fresh);
      if (waiting) again();
    }
    describe();
  }

  function draw() {
    list.replaceChildren(...entries.map(line));
    older.hidden = cursor === null;
    describe();
  }

  function describe() {
    list.hidden = entries.length === 0;
    empty.hidden = entries.length > 0;
    const filtered = Object.keys(filters()).length > 0;
    setText(empty, filtered ? 'No entry matches.' : kind === 'log' ? 'No log entry within the time that they are kept.' : 'No notification yet.');
    const how = stale ? 'the newest may be missing: the database is unavailable' : paused ? 'paused' : 'live';
    setText(about, `${entries.length}${cursor === null ? '' : '+'} ${entries.length === 1 ? 'entry' : 'entries'}, newest first, ${how}`);
  }

  function line(entry) {
    const needle = search.value.trim();
    const day = dayName(entry.time);
    return h(
      'li',
      { class: entry.level },
      h('time', { datetime: new Date(entry.time * 1000).toISOString(), title: `${date(entry.time)} ${clock(entry.time, true)}` }, day === 'Today' ? clock(entry.time, true) : `${date(entry.time).slice(5)} ${clock(entry.time).slice(0, 5)}`),
      h('span', { class: `level ${entry.level}` }, entry.level),
      h('span', { class: 'sender', title: entry.sender }, entry.sender),
      h('span', { class: 'message' }, marked(entry.message, needle)),
    );
  }

  function exportAll() {
    const text = entries.map((entry) => JSON.stringify(entry)).join('\n');
    const link = h('a', { href: URL.createObjectURL(new Blob([text, '\n'], { type: 'application/x-ndjson' })), download: `${kind}-${date(Date.now() / 1000)}.jsonl` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  begin();
  return {
    update(kinds) {
      if (kinds.has('hello')) begin();
    },
    message(message) {
      if (message.action === 'log' && kind === 'log') {
        if (message.dropped) {
          problem.textContent = `${message.dropped} entries came faster than this page could take them, and are not shown.`;
          problem.hidden = false;
        }
        take([...message.logs].reverse());
      } else if (message.type === 'notifications' && kind === 'notification') {
        stale = message.stale;
        if (paused && !anew) {
          waiting = true;
          more.hidden = false;
          setText(more, 'There are other notifications – show');
        } else again();
        describe();
      } else if (message.status === 'error') {
        problem.textContent = message.error.message;
        problem.hidden = false;
      }
    },
    destroy() {
      gone = true;
      clearTimeout(typing);
      live.send({ watch: [] });
      live.send({ action: 'unfollowLogs', id: 'unfollow' });
    },
  };
}

const identity = (entry) => `${entry.time} ${entry.sender} ${entry.level} ${entry.message}`;

/** The text with what was searched for marked. */
function marked(text, needle) {
  if (needle === '') return [text];
  const pieces = [];
  const low = text.toLowerCase();
  const wanted = needle.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    pieces.push(text.slice(from, at), h('mark', {}, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...pieces, text.slice(from)];
}
