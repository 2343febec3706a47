// How much was logged when: bars over the range, on which one can drag to choose a part of it.

import { h, s, setText } from './dom.js';
import { clock, count, date } from './format.js';

const HEIGHT = 56;
const PITCH = 6;
const KINDS = [['quiet', ['debug', 'info']], ['warning', ['warning']], ['error', ['error', 'critical']]];

/** `onrange(from, until)` is called with the part that was chosen, in s since the epoch. */
export class LogBars {
  #found = null;
  #at = null;
  #from = null;
  #onrange;

  constructor(onrange) {
    this.#onrange = onrange;
    this.words = h('p', { class: 'bar-words', 'aria-live': 'polite' });
    this.box = h('div', {
      class: 'log-bars',
      tabindex: 0,
      role: 'group',
      'aria-label': 'Entries by time; the arrow keys read one bar after the other, Enter looks into it',
      onkeydown: (event) => this.#key(event),
      onpointerdown: (event) => {
        if (this.#found === null || event.button !== 0) return;
        this.#from = this.#index(event);
        this.box.setPointerCapture(event.pointerId);
        this.#choose(this.#from);
      },
      onpointermove: (event) => this.#choose(this.#index(event)),
      onpointerup: () => this.#finish(),
      onpointercancel: () => (this.#from = null),
      onpointerleave: () => this.#from === null && this.#choose(null),
      onblur: () => this.#choose(null),
    });
    this.element = h('div', {}, this.box, this.words);
  }

  get #count() {
    return this.#found === null ? 0 : this.#found.levels.info.length;
  }

  #index(event) {
    const box = this.box.getBoundingClientRect();
    return Math.min(this.#count - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * this.#count)));
  }

  draw(found) {
    this.#found = found;
    const bars = this.#count;
    const sums = KINDS.map(([, levels]) => Array.from({ length: bars }, (_, i) => levels.reduce((sum, level) => sum + found.levels[level][i], 0)));
    const top = Math.max(1, ...Array.from({ length: bars }, (_, i) => sums.reduce((sum, each) => sum + each[i], 0)));
    const paths = KINDS.map(() => '');
    for (let i = 0; i < bars; i += 1) {
      let y = HEIGHT;
      for (let kind = KINDS.length - 1; kind >= 0; kind -= 1) {
        const value = sums[kind][i];
        if (value === 0) continue;
        const height = Math.max(1.5, (value / top) * (HEIGHT - 4));
        y -= height;
        paths[kind] += `M${i * PITCH} ${y.toFixed(1)}h${PITCH - 1}v${height.toFixed(1)}h-${PITCH - 1}z`;
      }
    }
    const all = sums.flat().reduce((sum, each) => sum + each, 0);
    const failures = sums[2].reduce((sum, each) => sum + each, 0);
    this.box.replaceChildren(
      s(
        'svg',
        { viewBox: `0 0 ${bars * PITCH - 1} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${count(all)} entries, ${count(failures)} of them errors` },
        ...KINDS.map(([name], kind) => s('path', { class: `l-${name}`, d: paths[kind] })),
      ),
      h('i', { class: 'chosen', hidden: true }),
    );
    this.#choose(this.#at);
  }

  #time(i) {
    return this.#found.start + i * this.#found.width;
  }

  #span(first, last) {
    const [from, until] = [this.#time(first), this.#time(last + 1)];
    const sameDay = date(from) === date(until);
    const precise = this.#found.width < 1;
    return `${date(from)} ${clock(from, precise)} – ${sameDay ? '' : `${date(until)} `}${clock(until, precise)}`;
  }

  #choose(at) {
    this.#at = at === null || this.#count === 0 ? null : at;
    const chosen = this.box.querySelector('.chosen');
    if (this.#found === null || chosen === null) return;
    if (this.#at === null) {
      chosen.hidden = true;
      setText(this.words, `${this.#span(0, this.#count - 1)}. Drag over it to look into a part.`);
      return;
    }
    const [first, last] = this.#from === null ? [at, at] : [Math.min(at, this.#from), Math.max(at, this.#from)];
    chosen.hidden = false;
    chosen.style.left = `${(first / this.#count) * 100}%`;
    chosen.style.width = `${((last - first + 1) / this.#count) * 100}%`;
    const totals = Object.entries(this.#found.levels).map(([level, counts]) => [level, counts.slice(first, last + 1).reduce((sum, each) => sum + each, 0)]).filter(([, sum]) => sum > 0);
    setText(this.words, `${this.#span(first, last)}: ${totals.map(([level, sum]) => `${count(sum)} ${level}`).join(', ') || 'nothing'}`);
  }

  #finish() {
    const from = this.#from;
    this.#from = null;
    if (from === null || this.#at === null) return;
    const [first, last] = [Math.min(from, this.#at), Math.max(from, this.#at)];
    // A click alone chooses nothing: it may be an accident.
    if (first !== last) this.#onrange(this.#time(first), this.#time(last + 1));
  }

  #key(event) {
    const last = this.#count - 1;
    if (last < 0) return;
    const at = this.#at;
    if (event.key === 'Enter' && at !== null) {
      this.#onrange(this.#time(at), this.#time(at + 1));
      return;
    }
    const to = { ArrowLeft: at === null ? last : at - 1, ArrowRight: at === null ? last : at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(Math.min(last, Math.max(0, to)));
  }
}
