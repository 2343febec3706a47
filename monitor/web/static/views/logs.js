// Log entries and notifications: filters, range, search, live tail, context, links and export.

import { problemOf } from '../conditions.js';
import { h, segments, setText } from '../dom.js';
import { clock, count, date, now } from '../format.js';
import { LogBars } from '../log-bars.js';
import { lineRow, nameOf } from '../log-lines.js';
import { LogRange } from '../log-range.js';
import { LogTail, exported } from '../log-tail.js';
import { Picture } from '../picture.js';
import { virtualList } from '../virtual.js';

const LEVELS = ['info', 'warning', 'error', 'critical'];
const AROUND = 200;
const BARS = 90;
const BARS_MS = 10000;
const TYPING_MS = 250;
// New entries are drawn this often: to read them as they come, more would not help. On a machine that is
// busy or slow it is seldom, so that drawing takes a tenth of the time at most.
const DRAW_MS = [200, 1000];
const DRAW_SHARE = 10;
const MOST_EXCLUDED = 10;

export function logs(root, { state, live, get, params, settle }) {
  let kind = params.get('kind') === 'notification' ? 'notification' : 'log';
  const moment = Number.parseFloat(params.get('around'));
  const around = Number.isFinite(moment) ? moment : null;
  const line = params.get('line');
  let tail;
  let paused = false; // by the button
  let gone = false;
  let asked = 0;
  let loading = false;
  let failed = false; // whether the last load was: then nobody knows what there is
  let waiting = false; // whether there are notifications that are not shown
  let troubled = false;
  let stale = false;
  let incoming = [];
  let drawing = 0;
  let drawMs = DRAW_MS[0];
  let offered = '';
  let typing = 0;
  let barTimer = 0;
  let revealed = false;
  let stopExport = null;

  const range = new LogRange(params, begin);
  const level = h('select', { 'aria-label': 'Least level', onchange: () => filtered({ level: level.value }) }, h('option', { value: '' }, 'All levels'), LEVELS.map((name) => h('option', { value: name }, name === 'critical' ? 'critical' : `${name} and worse`)));
  level.value = LEVELS.includes(params.get('level')) ? params.get('level') : '';
  const sender = h('input', { type: 'search', placeholder: 'Sender, exactly', 'aria-label': 'Sender, exactly', title: 'The whole name of the sender', size: 16, list: 'senders', value: params.get('sender'), oninput: () => soon({ sender: sender.value.trim() }) });
  const senders = h('datalist', { id: 'senders' });
  const search = h('input', { class: 'grow', type: 'search', placeholder: 'Search messages', 'aria-label': 'Search messages', value: params.get('q'), oninput: () => soon({ q: search.value.trim() }) });
  const exclude = h('input', {
    type: 'search',
    placeholder: 'Leave out …',
    'aria-label': 'Leave out messages with a text; Enter adds it',
    size: 12,
    onkeydown: (event) => {
      const text = exclude.value.trim();
      if (event.key !== 'Enter' || text === '') return;
      exclude.value = '';
      filtered({ not: [...new Set([...params.all('not'), text])].slice(0, MOST_EXCLUDED) });
    },
  });
  // Applied as a whole: half an expression is often invalid.
  const expression = h('input', { type: 'search', placeholder: 'Matches …', 'aria-label': 'Regular expression that messages match; Enter applies it', title: 'A regular expression, in the syntax of Python', size: 12, maxlength: 4096, value: params.get('regexp'), onchange: () => filtered({ regexp: expression.value }) });
  const chips = h('ul', { class: 'chips', 'aria-label': 'Left out' });
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => setPaused(!paused) }, 'Pause');
  const save = h('button', { type: 'button', title: 'All entries of this query, as JSON lines', onclick: exportAll }, 'Export');
  const about = h('p', { class: 'muted', role: 'status' });
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const held = h('button', { class: 'held', type: 'button', hidden: true, onclick: showHeld });
  const list = h('ol', { class: 'log', 'aria-label': 'Entries, newest first' });
  const older = h('button', { type: 'button', hidden: true, onclick: loadOlder }, 'Older entries');
  const picture = new Picture(list, { retry: () => load(), words: 'Loading the entries…' });
  const bars = new LogBars((from, until) => {
    range.set(from, until);
    begin();
  });
  const barPicture = new Picture(bars.element, { retry: loadBars, words: 'Counting the entries…' });
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Logs'), about)),
    around === null ? toolbar() : h('p', { class: 'toolbar' }, h('a', { class: 'button', href: '#/logs' }, 'All entries'), h('span', { class: 'muted' }, `What was logged around ${date(around)} ${clock(around, true)}${params.get('sender') ? ` by ${params.get('sender')}` : ''}`)),
    problem,
    around === null ? h('section', { class: 'panel bars-panel', 'aria-label': 'Entries by time' }, barPicture.element, bars.element) : '',
    h('div', { class: 'panel log-panel' }, h('div', { class: 'held-place' }, held), picture.element, list),
    h('p', { class: 'toolbar' }, older),
  );
  const rows = virtualList(list, {
    key: (entry) => entry.key,
    estimate: 27,
    create: (entry) =>
      lineRow(entry, {
        needle: around === null ? params.get('q') : '',
        mark: around !== null && entry.time === around && nameOf(entry) === line,
        onsender: (name) => {
          sender.value = name;
          if (around === null) filtered({ sender: name });
          else location.hash = `#/logs?sender=${encodeURIComponent(name)}`;
        },
        ontoggle: (changed) => rows.resize(changed.key),
      }),
  });

  function toolbar() {
    return h(
      'div',
      { class: 'toolbar' },
      segments('What', [['log', 'Log entries'], ['notification', 'Notifications']], kind, (value) => {
        kind = value;
        filtered({ kind: value === 'log' ? '' : value });
      }),
      search,
      sender,
      senders,
      exclude,
      expression,
      level,
      ...range.elements,
      pause,
      save,
      chips,
    );
  }

  /** The conditions of the query, as keys of the API. */
  function conditions() {
    const found = [];
    for (const [key, name] of [['level', 'min_level'], ['sender', 'sender'], ['q', 'contains'], ['regexp', 'regexp']]) if (params.get(key)) found.push([name, params.get(key)]);
    for (const text of params.all('not')) found.push(['not', text]);
    return found;
  }

  function filtered(values) {
    params.set(values);
    begin();
  }

  function soon(values) {
    clearTimeout(typing);
    typing = setTimeout(() => filtered(values), TYPING_MS);
  }

  /** Load everything again: first follow new entries, then fetch the earlier ones. */
  function begin() {
    const query = around === null ? [...conditions(), ...range.query()] : [['around', String(around)], ...conditions().filter(([key]) => key === 'sender')];
    const limited = around === null ? get : (path) => get(path.replace('limit=300', `limit=${AROUND}`));
    tail = new LogTail(limited, kind, query);
    incoming = [];
    waiting = stale = loading = failed = false;
    problem.hidden = true;
    drawChips();
    const follows = around === null && range.isLive;
    if (kind === 'log') {
      live.send({ watch: [] });
      if (follows) live.send({ action: 'followLogs', id: 'follow', ...followed() });
      else live.send({ action: 'unfollowLogs', id: 'unfollow' });
      load();
    } else {
      live.send({ action: 'unfollowLogs', id: 'unfollow' });
      // Its answer, and whatever comes later, says to load them.
      live.send({ watch: ['notifications'] });
      load();
    }
    pause.hidden = !follows;
    picture.loading();
    loadBars();
  }

  function followed() {
    const found = {};
    for (const [key, value] of conditions()) found[key] = key === 'not' ? [...(found.not ?? []), value] : value;
    return found;
  }

  function drawChips() {
    const excluded = params.all('not');
    chips.hidden = excluded.length === 0;
    chips.replaceChildren(
      ...excluded.map((text) => h('li', {}, h('span', { class: 'muted' }, 'without '), h('bdi', {}, text), h('button', { class: 'quiet', type: 'button', 'aria-label': `No longer leave out ${text}`, onclick: () => filtered({ not: excluded.filter((each) => each !== text) }) }, '×'))),
    );
  }

  async function load() {
    const mine = (asked += 1);
    loading = true;
    try {
      await tail.load();
      if (gone || mine !== asked) return;
      loading = failed = false;
      draw();
    } catch (error) {
      if (gone || mine !== asked) return;
      loading = false;
      failed = true;
      picture.failed(error, kind === 'log' ? 'The logs' : 'The notifications');
    }
    if (waiting && !holds()) again();
  }

  /** Load what is new; not while it is loaded already, or there would be no end to it. */
  function again() {
    waiting = loading;
    if (loading) return;
    load();
    loadBars();
  }

  async function loadOlder() {
    const mine = (asked += 1);
    older.disabled = true;
    try {
      await tail.older();
      if (!gone && mine === asked) draw();
    } catch (error) {
      if (!gone && mine === asked) picture.failed(error, 'Older entries');
    }
    older.disabled = false;
  }

  async function loadBars() {
    clearTimeout(barTimer);
    if (around !== null) return;
    const query = new URLSearchParams([...conditions(), ...range.query(), ['bars', BARS]]);
    const begun = performance.now();
    try {
      const found = await get(`/${kind}/histogram?${query}`);
      if (gone || String(query) !== String(new URLSearchParams([...conditions(), ...range.query(), ['bars', BARS]]))) return;
      bars.draw(found);
      barPicture.truth();
    } catch (error) {
      if (gone) return;
      barPicture.failed(error, 'The counts');
      return;
    }
    // A count that takes long is not made often.
    if (range.isLive && kind === 'log') barTimer = setTimeout(loadBars, Math.max(BARS_MS, 20 * (performance.now() - begun)));
    settle();
  }

  /** Whether new entries wait: by the button, or because one reads further down. */
  function holds() {
    return paused || list.getBoundingClientRect().top < -40 || (document.getSelection()?.isCollapsed === false && list.contains(document.getSelection().anchorNode));
  }

  function flush() {
    drawing = 0;
    if (incoming.length > 0) {
      const fresh = incoming;
      incoming = [];
      tail.take(fresh, holds());
    }
    const begun = performance.now();
    draw();
    drawMs = Math.min(DRAW_MS[1], Math.max(DRAW_MS[0], DRAW_SHARE * (performance.now() - begun)));
  }

  function drawSoon() {
    if (drawing === 0) drawing = setTimeout(flush, drawMs);
  }

  /** The logs are troubled, or no longer: say so, and load what could not be loaded. */
  function follow(isTroubled) {
    if (failed && troubled && !isTroubled) load();
    else if (!failed && isTroubled !== (picture.kind === 'away')) drawSoon();
    troubled = isTroubled;
  }

  /** Offer the senders of the newest entries, if these are others than before. */
  function offerSenders() {
    const names = [...new Set(tail.entries.slice(0, 500).map((entry) => entry.sender))].sort();
    const now = names.join('\n');
    if (now === offered) return;
    offered = now;
    senders.replaceChildren(...names.map((name) => h('option', { value: name })));
  }

  function setPaused(value) {
    paused = value;
    pause.setAttribute('aria-pressed', String(paused));
    setText(pause, paused ? 'Resume' : 'Pause');
    pause.className = paused ? 'primary' : '';
    if (!paused) showHeld();
    describe();
  }

  function showHeld() {
    if (paused) {
      setPaused(false);
      return;
    }
    if (list.getBoundingClientRect().top < 0) scrollTo(0, 0);
    document.getSelection()?.removeAllRanges();
    tail.release();
    if (waiting) again();
    draw();
  }

  /** What is known; a load that failed says so by itself, and is tried again. */
  function drawPicture() {
    if (loading && picture.kind === 'loading') return;
    if (tail.entries.length > 0) picture.truth();
    else if (!loading) picture.empty(emptyWords());
    const trouble = problemOf(state, 'logs');
    if (stale) picture.away('The newest may be missing: the database is unavailable.');
    else if (trouble !== null && picture.kind !== 'loading') picture.away(`The newest may be missing. ${trouble.words}`);
  }

  function draw() {
    if (!failed) drawPicture();
    rows.set(tail.entries, { keep: true });
    older.hidden = !tail.more || tail.entries.length === 0;
    offerSenders();
    describe();
    if (around !== null && !revealed) {
      revealed = true;
      const found = tail.entries.find((entry) => entry.time === around && nameOf(entry) === line);
      if (found !== undefined) rows.reveal(found.key);
      else if (line !== '') problem.textContent = 'This line is not kept any more; these are around its time.';
      problem.hidden = found !== undefined || line === '';
    }
    settle();
  }

  function emptyWords() {
    const narrowed = conditions().length > 0;
    const ranged = range.query().length > 0;
    const what = kind === 'log' ? 'log entry' : 'notification';
    if (narrowed || ranged) return `No ${what} matches${narrowed && params.get('sender') ? '; a sender must be named exactly' : ''}.`;
    return kind === 'log' ? 'No log entry within the time that they are kept.' : 'No notification yet.';
  }

  function describe() {
    const waits = tail.held.length;
    held.hidden = waits === 0 && !waiting;
    if (waits > 0) setText(held, `${count(waits)} new ${waits === 1 ? 'entry' : 'entries'} – show`);
    else if (waiting) setText(held, 'There are other notifications – show');
    const number = tail.entries.length;
    const follows = around === null && range.isLive;
    const how = !follows ? 'not live' : paused ? 'paused' : 'live';
    setText(about, `${count(number)}${tail.more ? '+' : ''} ${number === 1 ? 'entry' : 'entries'}, newest first, ${how}`);
  }

  async function exportAll() {
    if (stopExport !== null) {
      stopExport();
      return;
    }
    let stopped = false;
    stopExport = () => (stopped = true);
    problem.hidden = true;
    // Entries that arrive meanwhile do not belong to it.
    const query = [...conditions(), ...range.query(), ...(range.isLive ? [['until', String(now() + 60)]] : [])];
    const pieces = [];
    let number = 0;
    try {
      for await (const page of exported(get, kind, query, () => stopped || gone)) {
        pieces.push(new Blob(page.map((entry) => `${JSON.stringify(entry)}\n`)));
        number += page.length;
        setText(save, `${count(number)} – cancel`);
      }
      if (!stopped && !gone) {
        const url = URL.createObjectURL(new Blob(pieces, { type: 'application/x-ndjson' }));
        h('a', { href: url, download: `${kind}-${date(now())}.jsonl` }).click();
        setTimeout(() => URL.revokeObjectURL(url), 10000);
      }
    } catch (error) {
      problem.textContent = `The export stopped after ${count(number)} entries: ${error.message}. Nothing was saved.`;
      problem.hidden = false;
    }
    stopExport = null;
    setText(save, 'Export');
  }

  begin();
  return {
    update(kinds) {
      if (kinds.has('hello')) begin();
      else if (kinds.has('status')) follow(problemOf(state, 'logs') !== null);
    },
    second() {
      if (tail.held.length > 0 && !holds()) {
        tail.release();
        draw();
      }
    },
    message(message) {
      if (message.action === 'log' && kind === 'log') {
        if (message.dropped) {
          problem.textContent = `${message.dropped} entries came faster than this page could take them, and are not shown.`;
          problem.hidden = false;
        }
        incoming.unshift(...[...message.logs].reverse());
        drawSoon();
      } else if (message.type === 'notifications' && kind === 'notification') {
        stale = message.stale;
        if (holds()) {
          waiting = true;
          describe();
        } else again();
      } else if (message.status === 'error') {
        problem.textContent = message.error.message;
        problem.hidden = false;
      }
    },
    destroy() {
      gone = true;
      stopExport?.();
      clearTimeout(typing);
      clearTimeout(drawing);
      clearTimeout(barTimer);
      picture.destroy();
      barPicture.destroy();
      rows.destroy();
      live.send({ watch: [] });
      live.send({ action: 'unfollowLogs', id: 'unfollow' });
    },
  };
}
