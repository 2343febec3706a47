// What was measured in each window, as lines: read with the pointer or the arrow keys, zoomed by dragging.

import { h, s, setText } from './dom.js';
import { clock, date, milliseconds } from './format.js';
import { ticks } from './timeline-layout.js';

const MOST_LINES = 5;
const RESPONSE = ['p50', 'p95', 'p99'];
// Fields of a result that have no unit of time.
const PLAIN = new Set(['status', 'attempt', 'missed', 'job_id', 'producer', 'up', 'matched', 'degraded']);
const HEIGHT = 214;
const LEFT = 64;
const RIGHT = 12;
const TOP = 8;
const AXIS = 24;
// A shorter drag is a click; a shorter range has nothing to see.
const CLICK_PX = 4;
const LEAST_WINDOWS = 3;
const HINT = 'Point at the chart, or use the arrow keys, to read it; drag, or + and −, to zoom. Gaps were not checked.';

/** The fields that were measured in some window, and what is known of each. */
export function fieldsOf(metrics) {
  const found = new Map();
  for (const { fields } of metrics) {
    for (const [field, values] of Object.entries(fields ?? {})) found.set(field, Object.keys(values).filter((name) => name !== 'sum').slice(0, MOST_LINES));
  }
  return found;
}

/** Round values from 0 on, a few of them, of which the last one is `top` or more. */
function marks(top) {
  const rough = (top || 0.001) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
  return Array.from({ length: Math.ceil((top || 0.001) / step - 0.001) + 1 }, (_, i) => i * step);
}

/** A chart of 90 windows; a zoom stays when newer ones come. */
export class ResponseChart {
  #starts = [];
  #lines = []; // {name, values}
  #width = 0; // of a window, in s
  #field = null; // null for the response time
  #range = null; // [since, until] of a zoom
  #at = null; // the window that is read
  #from = null; // where a drag began, in px
  #over = s('g', {});
  #scaleX = () => 0;
  #scaleY = () => 0;

  constructor() {
    this.box = h('div', {
      class: 'plot',
      tabindex: 0,
      role: 'group',
      onkeydown: (event) => this.#key(event),
      onpointerdown: (event) => this.#press(event),
      onpointermove: (event) => this.#move(event),
      onpointerup: (event) => this.#release(event),
      onpointercancel: () => (this.#from = null),
      onpointerleave: () => this.#from === null && this.box !== document.activeElement && this.#read(null),
      onblur: () => this.#read(null),
      ondblclick: () => this.#zoom(null),
    });
    this.words = h('p', { class: 'bar-words', 'aria-live': 'polite' });
    this.all = h('button', { type: 'button', class: 'quiet', hidden: true, onclick: () => this.#zoom(null) }, 'Show all');
    this.legend = h('p', { class: 'legend' });
    this.element = h('div', { class: 'chart' }, this.box, h('div', { class: 'chart-words' }, this.words, this.all), this.legend);
    this.resized = new ResizeObserver(() => this.#paint());
    this.resized.observe(this.box);
  }

  draw(metrics, uptime, field = null) {
    const byStart = new Map(metrics.map((each) => [each.start, each]));
    const names = field === null ? RESPONSE : (fieldsOf(metrics).get(field) ?? []);
    const value = (window, name) => (field === null ? window?.[name] : window?.fields?.[field]?.[name]) ?? null;
    this.#starts = uptime.checks.map((_, i) => uptime.start + i * uptime.width);
    this.#lines = names.map((name) => ({ name, values: this.#starts.map((start) => value(byStart.get(start), name)) }));
    // Another span has other times, and what was zoomed into may be over: then there is nothing to keep.
    if (this.#width !== uptime.width || this.#range?.[1] <= uptime.start) this.#range = null;
    this.#width = uptime.width;
    this.#field = field;
    this.box.setAttribute('aria-label', `${field ?? 'Response times'} by window; the arrow keys read one after the other, + and − zoom, Escape shows all`);
    this.legend.replaceChildren(
      ...names.map((name, i) => h('span', {}, s('svg', { width: 22, height: 10, 'aria-hidden': 'true' }, s('line', { class: `line-${i}`, x1: 0, x2: 22, y1: 5, y2: 5 })), name)),
    );
    this.#paint();
  }

  destroy() {
    this.resized.disconnect();
  }

  #shown() {
    return this.#range ?? [this.#starts[0], this.#starts.at(-1) + this.#width];
  }

  #middle(i) {
    return this.#starts[i] + this.#width / 2;
  }

  /** The numbers of the windows that are shown. */
  #inside() {
    const [since, until] = this.#shown();
    return [...this.#starts.keys()].filter((i) => this.#middle(i) >= since && this.#middle(i) <= until);
  }

  #text(value) {
    if (value === null) return '–';
    return PLAIN.has(this.#field) ? String(Math.round(value * 100) / 100) : milliseconds(value);
  }

  #paint() {
    const width = this.box.clientWidth;
    if (width === 0 || this.#starts.length === 0) return;
    const [since, until] = this.#shown();
    const inside = this.#inside();
    const rounded = marks(Math.max(0, ...this.#lines.flatMap(({ values }) => inside.map((i) => values[i] ?? 0))));
    this.#scaleX = (at) => LEFT + ((at - since) / (until - since)) * (width - LEFT - RIGHT);
    this.#scaleY = (value) => TOP + (1 - value / rounded.at(-1)) * (HEIGHT - TOP);
    const grid = rounded.flatMap((value) => {
      const y = this.#scaleY(value);
      return [s('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y, y2: y }), s('text', { x: LEFT - 8, y: y + 4, 'text-anchor': 'end' }, value === 0 ? '0' : this.#text(value).replace(/\.0+(?= |$)/, ''))];
    });
    const { step, found } = ticks(since, until, Math.max(2, Math.floor((width - LEFT) / 84)));
    for (const at of found) {
      const x = this.#scaleX(at);
      if (x < LEFT + 14 || x > width - RIGHT - 12) continue;
      grid.push(s('line', { class: 'grid', x1: x, x2: x, y1: TOP, y2: HEIGHT }), s('text', { x, y: HEIGHT + 17, 'text-anchor': 'middle' }, step >= 86400 ? date(at).slice(5) : clock(at).slice(0, 5)));
    }
    this.#over = s('g', {});
    this.box.replaceChildren(
      s(
        'svg',
        { class: 'lines', width, height: HEIGHT + AXIS, viewBox: `0 0 ${width} ${HEIGHT + AXIS}`, 'aria-hidden': 'true' },
        ...grid,
        // The first one is the one to look at: it is on top.
        ...this.#lines.map((line, i) => this.#line(line, i, inside)).reverse(),
        this.#over,
      ),
    );
    this.element.dataset.zoomed = String(this.#range !== null);
    this.all.hidden = this.#range === null;
    this.#read(inside.includes(this.#at) ? this.#at : null);
  }

  #line({ values }, number, inside) {
    let path = '';
    let drawn = null; // the last window with a value
    for (const i of inside) {
      if (values[i] === null) continue;
      const place = `${this.#scaleX(this.#middle(i)).toFixed(1)} ${this.#scaleY(values[i]).toFixed(1)}`;
      path += drawn === i - 1 ? `L${place}` : `M${place}`;
      // A window between two gaps is a point: a line alone would not show it.
      if ((values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null) path += 'h0.01';
      drawn = i;
    }
    return s('path', { class: `line-${number}`, d: path });
  }

  // Reading

  #read(at) {
    this.#at = at;
    const words = at === null ? HINT : `${date(this.#starts[at])} ${clock(this.#starts[at]).slice(0, 5)}: ${this.#lines.map(({ name, values }) => `${name} ${this.#text(values[at])}`).join(', ')}`;
    setText(this.words, words);
    if (this.#from !== null) return;
    const x = at === null ? 0 : this.#scaleX(this.#middle(at));
    this.#over.replaceChildren(
      ...(at === null ? [] : [s('line', { class: 'cursor', x1: x, x2: x, y1: TOP, y2: HEIGHT })]),
      ...(at === null ? [] : this.#lines.flatMap(({ values }, i) => (values[at] === null ? [] : [s('circle', { class: `line-${i}`, cx: x, cy: this.#scaleY(values[at]), r: 3.5 })]))),
    );
  }

  #time(x) {
    const [since, until] = this.#shown();
    return since + ((x - LEFT) / (this.box.clientWidth - LEFT - RIGHT)) * (until - since);
  }

  #place(event) {
    const { left, width } = this.box.getBoundingClientRect();
    return Math.min(width - RIGHT, Math.max(LEFT, event.clientX - left));
  }

  // Zooming

  #zoom(range) {
    if (this.#starts.length === 0) return;
    const full = [this.#starts[0], this.#starts.at(-1) + this.#width];
    let [since, until] = range ?? full;
    const least = LEAST_WINDOWS * this.#width;
    if (until - since < least) [since, until] = [(since + until - least) / 2, (since + until + least) / 2];
    since = Math.max(since, full[0]);
    until = Math.min(until, full[1]);
    // The button is gone then, and the keyboard continues here.
    if (document.activeElement === this.all) this.box.focus({ preventScroll: true });
    this.#range = since <= full[0] && until >= full[1] ? null : [since, until];
    this.#paint();
  }

  #press(event) {
    if (event.button !== 0 || this.#starts.length === 0) return;
    this.#from = this.#place(event);
    this.box.setPointerCapture(event.pointerId);
  }

  #move(event) {
    if (this.#starts.length === 0) return;
    const x = this.#place(event);
    if (this.#from !== null && Math.abs(x - this.#from) >= CLICK_PX) {
      this.#over.replaceChildren(s('rect', { class: 'chosen', x: Math.min(x, this.#from), width: Math.abs(x - this.#from), y: TOP, height: HEIGHT - TOP }));
    }
    const inside = this.#inside();
    const at = this.#time(x);
    this.#read(inside.reduce((nearest, i) => (Math.abs(this.#middle(i) - at) < Math.abs(this.#middle(nearest) - at) ? i : nearest), inside[0] ?? null));
  }

  #release(event) {
    const from = this.#from;
    this.#from = null;
    if (from === null) return;
    const x = this.#place(event);
    if (Math.abs(x - from) >= CLICK_PX) this.#zoom([this.#time(Math.min(x, from)), this.#time(Math.max(x, from))]);
  }

  #key(event) {
    const inside = this.#inside();
    if (inside.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const [since, until] = this.#shown();
    const [first, last] = [inside[0], inside.at(-1)];
    const at = this.#at === null || this.#at > last || this.#at < first ? null : this.#at;
    const to = { ArrowLeft: at === null ? last : Math.max(first, at - 1), ArrowRight: at === null ? last : Math.min(last, at + 1), Home: first, End: last }[event.key];
    const centre = at === null ? (since + until) / 2 : this.#middle(at);
    if (to !== undefined) this.#read(to);
    else if (event.key === '+' || event.key === '=') this.#zoom([centre - (until - since) / 4, centre + (until - since) / 4]);
    else if (event.key === '-') this.#zoom([centre - (until - since), centre + (until - since)]);
    else if (event.key === 'Escape' && this.#range !== null) this.#zoom(null);
    else return;
    event.preventDefault();
  }
}
