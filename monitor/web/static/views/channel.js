// One channel of the relay as a progress bar, and what of it may be missing.

import { conditionOf } from '../conditions.js';
import { h, icon, setText, stateMark } from '../dom.js';
import { clock, count, date, dayName } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';
import { Position } from '../relay-position.js';

const STEPS_SHOWN = 500;
const NOTES_KEPT = 20;

export function channel(root, context, [name]) {
  const { state, live, params, settle } = context;
  const open = state.has('incidents') ? new IncidentList(context, { wanted: (each) => each.watch === 'feed', title: 'Open incidents of the feed' }) : null;
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
  let answered = false;

  const mark = h('p', {});
  const expected = h('input', { type: 'number', min: 1, max: 1000000, size: 6, id: 'expected', value: params.get('tasks'), oninput: expect });
  const notes = h('ul', { class: 'notes', role: 'status', 'aria-label': 'What may be missing', hidden: true });
  const bar = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Tasks', 'aria-valuemin': 0 }, h('i', { class: 'done' }), h('i', { class: 'failed' }), h('i', { class: 'skipped' }));
  const numbers = h('p', { class: 'legend' });
  const barWords = h('p', { class: 'muted bar-words' });
  const taskBody = h('div', { class: 'body' }, bar, barWords, numbers);
  const steps = h('ol', { class: 'steps', tabindex: 0, 'aria-label': 'Messages, newest first' });
  const taskPicture = new Picture(taskBody);
  const stepPicture = new Picture(steps);
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/relay' }, 'Relay')), h('h1', { dir: 'auto' }, name), mark)),
    ...(open ? [open.element] : []),
    notes,
    h(
      'section',
      { class: 'panel' },
      h('header', {}, h('h2', {}, 'Tasks'), h('label', { class: 'more muted', for: 'expected' }, 'expected', expected)),
      taskPicture.element,
      taskBody,
    ),
    h('br', {}),
    h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Messages'), h('span', { class: 'more muted' }, 'times are those of their arrival at the relay')), stepPicture.element, steps),
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

  function expect() {
    params.set({ tasks: expected.value });
    draw();
  }

  function draw() {
    const nothing = absent ? 'The relay does not have this channel: nothing has been sent to it yet.' : 'Nothing has been sent to this channel yet.';
    let condition = state.has('channels') ? null : conditionOf(state, 'channels');
    if (condition === null && last === null) condition = answered ? { kind: 'empty', words: nothing } : { kind: 'loading', words: 'Loading the messages…' };
    for (const picture of [taskPicture, stepPicture]) picture.of(condition);
    const done = counts.COMPLETED + counts.FAILED + counts.SKIPPED;
    // How many there will be is known elsewhere. Until the job has ended, or that was entered, the
    // bar does not say how far it is.
    const total = Number(expected.value) || (ended || last === 'FINISHED' ? done : 0);
    const known = total > 0;
    bar.classList.toggle('unknown', !known);
    const whole = Math.max(total, done) || 1;
    const [good, failed, skipped] = bar.children;
    const share = (part) => (known ? `${(100 * part) / whole}%` : '0');
    good.style.width = share(counts.COMPLETED);
    failed.style.width = share(counts.FAILED);
    skipped.style.width = share(counts.SKIPPED);
    if (known) {
      bar.setAttribute('aria-valuemax', String(whole));
      bar.setAttribute('aria-valuenow', String(done));
    } else {
      bar.removeAttribute('aria-valuemax');
      bar.removeAttribute('aria-valuenow');
    }
    const words = known ? `${done} of ${total} tasks` : `${done} tasks so far; how many there will be is not known here`;
    bar.setAttribute('aria-valuetext', words);
    setText(barWords, done > total && known ? `${words}: more than expected` : words);
    numbers.replaceChildren(
      h('span', {}, h('i', { class: 'key-up' }), `${counts.COMPLETED} completed`),
      h('span', {}, h('i', { class: 'key-down' }), `${counts.FAILED} failed`),
      h('span', {}, h('i', { class: 'key-some' }), `${counts.SKIPPED} skipped`),
    );
    const failures = counts.FAILED > 0 ? `, ${counts.FAILED} failed` : '';
    const how = last === 'FINISHED' ? [failures ? 'degraded' : 'up', `finished${failures}`] : last === 'FAILED' ? ['down', 'failed'] : ended ? ['down', 'ended without FINISHED'] : last === null ? ['unknown', 'nothing yet'] : ['starting', `running, last: ${last}`];
    mark.replaceChildren(...(state.has('channels') ? [stateMark(...how)] : []));
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
      steps.prepend(step(command, task_id, task_state, told[1].time));
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

  function step(command, task, how, at) {
    const bad = command === 'FAILED' || how === 'FAILED';
    const some = how === 'SKIPPED';
    const time = h('time', { datetime: new Date(at * 1000).toISOString(), title: `${date(at)} ${clock(at, true)}` }, `${dayName(at) === 'Today' ? '' : `${date(at)} `}${clock(at, true)}`);
    return h(
      'li',
      { class: bad ? 'bad' : some ? 'some' : '' },
      time,
      bad ? icon('down', 14) : some ? icon('inactive', 14) : h('span', { class: 'no-sign' }),
      h('b', {}, h('bdi', {}, command)),
      h('bdi', {}, [task, how].filter(Boolean).join(' ')),
    );
  }

  function soon() {
    if (began) return;
    began = true;
    queueMicrotask(() => {
      began = false;
      draw();
      settle();
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
  draw();

  return {
    update(kinds) {
      open?.update(kinds);
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
      if (absent || message.type === 'subscribed') answered = true;
      for (const [kind, ...told] of position.take(message)) take(kind, told);
      if (message.type === 'subscribed') away = false;
      soon();
    },
    destroy() {
      live.send({ type: 'leave', channel: name });
      taskPicture.destroy();
      stepPicture.destroy();
    },
  };
}
