// One channel of the relay as a progress bar, and what of it may be missing.

import { h, stateMark } from '../dom.js';
import { clock, count } from '../format.js';
import { Position } from '../relay-position.js';

const STEPS_SHOWN = 500;
const NOTES_KEPT = 20;

export function channel(root, { state, live }, [name]) {
  const position = new Position(name);
  let counts;
  let last;
  let ended;
  let lost; // sentences about what is missing for good
  let gaps; // by message and beginning: when the relay had lost a broker
  let seen = 0; // the number of the last message here
  let absent = false;
  let away = false;
  let began = false;

  const mark = h('p', {});
  const expected = h('input', { type: 'number', min: 1, max: 1000000, size: 6, id: 'expected', oninput: draw });
  const notes = h('ul', { class: 'notes', role: 'status', 'aria-label': 'What may be missing', hidden: true });
  const bar = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Tasks', 'aria-valuemin': 0 }, h('i', { class: 'done' }), h('i', { class: 'failed' }), h('i', { class: 'skipped' }));
  const numbers = h('p', { class: 'legend' });
  const steps = h('ol', { class: 'steps', tabindex: 0, 'aria-label': 'Messages, newest first' });
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/relay' }, 'Relay')), h('h1', {}, name), mark)),
    notes,
    h(
      'section',
      { class: 'panel' },
      h('header', {}, h('h2', {}, 'Tasks'), h('label', { class: 'more muted', for: 'expected' }, 'expected', expected)),
      h('div', { class: 'body' }, bar, numbers),
    ),
    h('br', {}),
    h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Messages')), steps),
  );

  function reset() {
    counts = { COMPLETED: 0, FAILED: 0, SKIPPED: 0 };
    last = null;
    ended = false;
    lost = [];
    gaps = new Map();
    seen = 0;
    steps.replaceChildren();
  }

  function draw() {
    const done = counts.COMPLETED + counts.FAILED + counts.SKIPPED;
    // How many there will be is known elsewhere; until then, the bar shows proportions.
    const total = Math.max(done, Number(expected.value) || 0) || 1;
    const [good, failed, skipped] = bar.children;
    good.style.width = `${(100 * counts.COMPLETED) / total}%`;
    failed.style.width = `${(100 * counts.FAILED) / total}%`;
    skipped.style.width = `${(100 * counts.SKIPPED) / total}%`;
    bar.setAttribute('aria-valuemax', String(total));
    bar.setAttribute('aria-valuenow', String(done));
    numbers.replaceChildren(
      h('span', {}, h('i', { class: 'key-up' }), `${counts.COMPLETED} completed`),
      h('span', {}, h('i', { class: 'key-down' }), `${counts.FAILED} failed`),
      h('span', {}, h('i', { class: 'key-some' }), `${counts.SKIPPED} skipped`),
    );
    const how = last === 'FINISHED' ? ['up', 'finished'] : ended ? ['down', 'ended without FINISHED'] : last === null ? ['unknown', 'nothing yet'] : ['starting', `running, last: ${last}`];
    mark.replaceChildren(stateMark(...how));
    drawNotes();
  }

  function drawNotes() {
    const told = [...lost, ...[...gaps.values()].map(gapText)];
    if (absent && last !== null) told.push(ended ? 'The relay no longer keeps this channel.' : 'The relay no longer knows this channel: later messages are missing here.');
    if (state.status?.relay?.brokers === 0 && !ended) told.push('No broker is connected to the relay now: nothing new can come.');
    if (told.join() === [...notes.children].map((note) => note.textContent).join()) return;
    notes.replaceChildren(...told.map((text) => h('li', {}, text)));
    notes.hidden = told.length === 0;
  }

  function gapText({ seq, since, until }) {
    const when = until === null ? `at ${clock(since)}` : `from ${clock(since)} to ${clock(until)}`;
    return `The relay lost a broker ${when}: after message ${count(seq)} some may be missing.`;
  }

  function take(kind, told) {
    if (kind === 'message') {
      const [{ command, task_id, task_state }, { seq }] = told;
      seen = seq;
      last = command;
      if (command === 'TASK' && task_state in counts) counts[task_state] += 1;
      steps.prepend(h('li', {}, h('b', {}, command), h('span', {}, [task_id, task_state].filter(Boolean).join(' '))));
      if (steps.childElementCount > STEPS_SHOWN) steps.lastChild.remove();
    } else if (kind === 'reset') {
      const [{ seq, anew }] = told;
      // Nothing is lost if a channel that ended here is used again; after a reconnect nobody can tell.
      const plain = ended && !away;
      if (anew) reset();
      if (anew && !plain) lost.push('The relay no longer knew what this page had seen: this is what it has now, from its beginning.');
      if (seq > seen) lost.push(seen + 1 === seq ? `Message ${count(seq)} is no longer kept, and is missing here.` : `Messages ${count(seen + 1)} to ${count(seq)} are no longer kept, and are missing here.`);
      lost.splice(0, lost.length - NOTES_KEPT);
      seen = seq;
    } else if (kind === 'gap') {
      const [gap] = told;
      gaps.set(`${gap.seq} ${gap.since}`, gap);
      if (gaps.size > NOTES_KEPT) gaps.delete(gaps.keys().next().value);
    } else if (kind === 'end') {
      ended = true;
    }
  }

  function soon() {
    if (began) return;
    began = true;
    queueMicrotask(() => {
      began = false;
      draw();
    });
  }

  function follow() {
    if (!state.has('channels')) return;
    position.disconnected();
    live.sendText(position.request());
  }

  reset();
  draw();
  if (state.has('channels')) follow();
  else mark.replaceChildren('Channels are shown to administrators.');

  return {
    update(kinds) {
      if (kinds.has('hello')) follow();
      if (kinds.has('status') && state.has('channels')) drawNotes();
    },
    lost() {
      away = true;
    },
    message(message) {
      if (message.channel !== name) return;
      // An open gap is reported again when a broker is back.
      const known = message.state === 'gap' && gaps.get(`${message.seq} ${message.since}`);
      if (known) known.until = message.until;
      absent = message.type === 'absent';
      for (const [kind, ...told] of position.take(message)) take(kind, told);
      if (message.type === 'subscribed') away = false;
      soon();
    },
    destroy() {
      live.send({ type: 'leave', channel: name });
    },
  };
}
