// One channel of the relay as a progress bar.

import { h, stateMark } from '../dom.js';

const STEPS_SHOWN = 500;

export function channel(root, { state, live }, [name]) {
  let counts;
  let last;
  let ended;
  let began = false;

  const mark = h('p', {});
  const expected = h('input', { type: 'number', min: 1, max: 1000000, size: 6, id: 'expected', oninput: draw });
  const bar = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Tasks', 'aria-valuemin': 0 }, h('i', { class: 'done' }), h('i', { class: 'failed' }), h('i', { class: 'skipped' }));
  const numbers = h('p', { class: 'legend' });
  const steps = h('ol', { class: 'steps', tabindex: 0, 'aria-label': 'Messages, newest first' });
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/relay' }, 'Relay')), h('h1', {}, name), mark)),
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
    steps.replaceChildren();
    draw();
  }

  function draw() {
    const done = counts.COMPLETED + counts.FAILED + counts.SKIPPED;
    // How many there will be is known elsewhere; until it is said, the bar shows proportions.
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
  }

  const follow = () => live.send({ follow: name });
  reset();
  if (state.has('channels')) follow();
  else mark.replaceChildren('Channels are shown to administrators.');

  return {
    update(kinds) {
      if (kinds.has('hello')) follow();
    },
    message(message) {
      if (message.type === 'channel') {
        if (message.name !== name) return;
        if (message.reset) reset();
        if (message.ended) ended = true;
        draw();
      } else if (message.command !== undefined) {
        last = message.command;
        if (message.command === 'TASK' && message.task_state in counts) counts[message.task_state] += 1;
        steps.prepend(h('li', {}, h('b', {}, message.command), h('span', {}, [message.task_id, message.task_state].filter(Boolean).join(' '))));
        if (steps.childElementCount > STEPS_SHOWN) steps.lastChild.remove();
        if (!began) {
          began = true;
          queueMicrotask(() => {
            began = false;
            draw();
          });
        }
      }
    },
    destroy() {
      live.send({ follow: null });
    },
  };
}
