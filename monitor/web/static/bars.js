// Uptime bars: a window a bar, a gap where nothing was checked. They differ by shape, too: what was
// up is whole, what failed in part is cut in two at the share that failed, and what was down is cut
// in three.

import { h, s, setText } from './dom.js';
import { clock, date, percent } from './format.js';

/** The share of checks that were up, or null where there was none. */
export function share(uptime) {
  let checks = 0;
  let failures = 0;
  for (let i = 0; i < uptime.checks.length; i += 1) {
    checks += uptime.checks[i];
    failures += uptime.failures[i];
  }
  return checks === 0 ? null : (checks - failures) / checks;
}

const PITCH = 4;
const HEIGHT = 26;
const CUT = 2;
const LEAST = 5;

/** Draw bars: a few paths, however many windows there are. */
export function bars(uptime, { tall = false } = {}) {
  const paths = { 'b-up': '', 'b-some': '', 'b-down': '', 'b-gap': '' };
  const { checks, failures } = uptime;
  const block = (name, i, top, height) => (paths[name] += `M${i * PITCH} ${top.toFixed(1)}h3v${height.toFixed(1)}h-3z`);
  let gaps = 0;
  for (let i = 0; i < checks.length; i += 1) {
    if (checks[i] === 0) {
      gaps += 1;
      block('b-gap', i, HEIGHT - 3, 3);
    } else if (failures[i] === 0) block('b-up', i, 0, HEIGHT);
    else if (failures[i] === checks[i]) {
      const third = (HEIGHT - 2 * CUT) / 3;
      for (let part = 0; part < 3; part += 1) block('b-down', i, part * (third + CUT), third);
    } else {
      const most = HEIGHT - CUT - LEAST;
      const failed = Math.min(most, Math.max(LEAST, (failures[i] / checks[i]) * HEIGHT));
      block('b-up', i, 0, HEIGHT - CUT - failed);
      block('b-some', i, HEIGHT - failed, failed);
    }
  }
  const found = share(uptime);
  const label =
    found === null
      ? 'no checks in this time'
      : `${percent(found)} up in ${checks.length} windows, ${gaps} without checks`;
  return s(
    'svg',
    {
      class: tall ? 'uptime tall' : 'uptime',
      viewBox: `0 0 ${checks.length * PITCH - 1} ${HEIGHT}`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    ...Object.entries(paths).map(([name, d]) => s('path', { class: name, d })),
  );
}

/** A window of an uptime in words. */
export function windowText(uptime, i) {
  const at = uptime.start + i * uptime.width;
  const checks = uptime.checks[i];
  const failures = uptime.failures[i];
  const what = checks === 0 ? 'no checks' : failures === 0 ? `${checks} ${checks === 1 ? 'check' : 'checks'}, all up` : `${failures} of ${checks} checks down`;
  // Windows of days are days of UTC, wherever the page is looked at.
  const when = uptime.width >= 86400 ? `${new Date(at * 1000).toISOString().slice(0, 10)} (UTC)` : `${date(at)} ${clock(at).slice(0, 5)}`;
  return `${when}: ${what}`;
}

/** Tall bars whose windows can be read one by one, with the pointer or the arrow keys. */
export class ReadableBars {
  #uptime = null;
  #at = null;

  constructor() {
    this.words = h('p', { class: 'bar-words', 'aria-live': 'polite' });
    this.box = h('div', {
      class: 'readable',
      tabindex: 0,
      role: 'group',
      'aria-label': 'Uptime by window; the arrow keys read one after the other',
      onkeydown: (event) => this.#key(event),
      onpointermove: (event) => {
        const box = this.box.getBoundingClientRect();
        this.#choose(Math.floor(((event.clientX - box.left) / box.width) * this.#count));
      },
      onpointerleave: () => this.box !== document.activeElement && this.#choose(null),
      onblur: () => this.#choose(null),
    });
    this.element = h('div', {}, this.box, this.words);
    this.#choose(null);
  }

  get #count() {
    return this.#uptime?.checks.length ?? 0;
  }

  draw(uptime) {
    this.#uptime = uptime;
    this.box.replaceChildren(bars(uptime, { tall: true }), h('i', { class: 'cursor', hidden: true }));
    this.#choose(this.#at);
  }

  #key(event) {
    const last = this.#count - 1;
    const at = this.#at;
    const to = { ArrowLeft: at === null ? last : at - 1, ArrowRight: at === null ? last : at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(to);
  }

  #choose(at) {
    this.#at = at === null || this.#count === 0 ? null : Math.min(this.#count - 1, Math.max(0, at));
    const cursor = this.box.querySelector('.cursor');
    if (cursor !== null) {
      cursor.hidden = this.#at === null;
      if (this.#at !== null) cursor.style.left = `${((this.#at + 0.4) / this.#count) * 100}%`;
    }
    setText(this.words, this.#at === null ? 'Point at a bar, or use the arrow keys, to read it.' : windowText(this.#uptime, this.#at));
  }
}
