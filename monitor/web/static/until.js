// A choice of an end: some usual spans, or a time of one's own.

import { h, setText } from './dom.js';
import { now } from './format.js';
import { menu } from './menu.js';

const SPANS = [[3600, '1 hour'], [14400, '4 hours'], [86400, '1 day'], [604800, '7 days']];

/** The value of an input of the type datetime-local, of a time in s since the epoch. */
export function localTime(seconds) {
  const there = new Date(seconds * 1000);
  return new Date(seconds * 1000 - there.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

/** The time of such an input in s since the epoch; NaN if there is none. */
export const timeOf = (input) => new Date(input.value).getTime() / 1000;

/** A menu named `title` that does `act` ("Pause"): `choose(until)` gets the end, in s since the epoch. */
export function untilChoice(title, act, choose) {
  const time = h('input', { type: 'datetime-local', 'aria-label': `${act} until`, onkeydown: (event) => event.key === 'Enter' && take() });
  const own = h('span', { class: 'own-time', hidden: true }, time, h('button', { type: 'button', class: 'primary', onclick: take }, act));
  const wrong = h('span', { class: 'tone-down', role: 'alert' });
  const choice = menu(title, `${act}…`, [
    ...SPANS.map(([seconds, text]) => [`for ${text}`, () => {
      own.hidden = true;
      choose(now() + seconds);
    }]),
    ['until a time…', askTime],
  ]);

  function askTime() {
    setText(wrong, '');
    own.hidden = false;
    time.min = localTime(now());
    time.value = localTime(now() + 3600);
    time.focus();
  }

  function take() {
    const until = timeOf(time);
    const isLater = until > now();
    setText(wrong, isLater ? '' : 'Choose a time that is still to come.');
    if (!isLater) return;
    own.hidden = true;
    choose(until);
  }
  return h('span', { class: 'until' }, choice, own, wrong);
}
