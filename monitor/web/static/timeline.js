// The timeline: what happened on one clock, over a range that one drags, with the pointer or by keys.

import { h, icon, segments, setText, sync } from './dom.js';
import { clock, date, duration, now, rangeText, unbroken } from './format.js';
import { Picture } from './picture.js';
import { link, params } from './route.js';
import { LANES, MARGIN, draw, toneOf } from './timeline-drawing.js';
import { clamp } from './timeline-layout.js';

const SPANS = [[3600, '1 h'], [21600, '6 h'], [86400, '24 h'], [604800, '7 d'], [2592000, '30 d']];
const REFRESH_MS = 20000;
// What the daemon answers may be 5 s old.
export const SOON_MS = 5500;
const SETTLED_MS = 250;
const SAID = 2;
const CLICK_PX = 4;
const HINT = 'Drag to move, drag the clock below to zoom in; with the keyboard ← → reads events, + − zooms, Shift ← → moves.';

const NEEDS = { incidents: ['history', 'incidents'], models: ['models'], logs: ['logs'], feed: ['relay'], maintenance: ['incidents'] };

/** Where an event is shown in full, or null. */
export function placeOf(event, about = {}) {
  if (event.lane === 'incidents' && event.incident) return `#/incidents/${event.incident}`;
  if (event.lane === 'incidents' && event.job && event.job !== about.job) return `#/sites/${event.job}`;
  if (event.lane === 'models') return `#/models/${event.subject.split('/').map(encodeURIComponent).join('/')}`;
  if (event.lane === 'logs') return event.subject && event.subject !== about.sender ? `#/logs/${encodeURIComponent(event.subject)}` : link('logs', { from: Math.floor(event.start - 5), until: Math.ceil(event.end + 5), level: 'error', sender: event.subject });
  if (event.lane === 'feed') return '#/relay';
  return null;
}

/** An event in words: when, what, how long, of what, and what it followed. */
export function wordsOf(event) {
  const from = `${date(event.start)} ${clock(event.start)}`;
  const length = event.end === null ? `${duration(now() - event.start)} so far` : event.end - event.start >= 1 ? duration(event.end - event.start) : '';
  const more = [
    length && (event.rough && event.lane === 'incidents' ? `about ${length}` : length),
    event.detail,
    event.acknowledged_by && `acknowledged by ${event.acknowledged_by}`,
    event.suppressed_by && `not sent: ${event.suppressed_by}`,
    event.count > 1 && event.names.length > 0 && event.lane === 'incidents' ? `${event.names.join(', ')}${event.count > event.names.length ? ' …' : ''}` : '',
  ].filter(Boolean);
  return { when: from, what: event.title, more: more.join(' · ') };
}

/**
 * A panel with the timeline of all, or of one `job`, `model` (namespace/name) or `sender`.
 * Its range is in the address as `time`: a length in s, or FROM-UNTIL.
 */
export class TimelinePanel {
  #state;
  #get;
  #about;
  #lanes;
  #events = [];
  #unread = [];
  #span;
  #until; // null: the range ends now
  #loaded = null;
  #selected = null;
  #view = null;
  #drag = null;
  #gone = false;
  #timer = 0;
  #soon = 0;
  #asked = 0;

  constructor({ state, get }, about = {}, { span = 86400, title = 'Timeline', range = null } = {}) {
    this.#state = state;
    this.#get = get;
    this.#about = about;
    this.#lanes = LANES.filter(([lane]) => NEEDS[lane].some((what) => state.has(what)));
    this.#fromAddress(span, range);
    this.#build(title);
    this.#show();
    this.refresh();
    this.#timer = setInterval(() => this.#until === null && this.refresh(), REFRESH_MS);
  }

  static isOf(state) {
    return Object.values(NEEDS).flat().some((what) => state.has(what));
  }

  /** Something may have happened: ask again, soon. */
  update(kinds) {
    if (!['models', 'changes', 'incidents'].some((kind) => kinds.has(kind)) || this.#until !== null) return;
    this.#soon ||= setTimeout(() => this.refresh(), SOON_MS);
  }

  destroy() {
    this.#gone = true;
    clearInterval(this.#timer);
    clearTimeout(this.#soon);
    this.#resized.disconnect();
    this.picture.destroy();
  }

  async refresh() {
    clearTimeout(this.#soon);
    this.#soon = 0;
    const mine = (this.#asked += 1);
    const query = new URLSearchParams({ span: Math.max(1, Math.round(this.#span)) });
    if (this.#until !== null) query.set('until', Math.round(this.#until));
    for (const [key, value] of Object.entries(this.#about)) query.set(key, value);
    try {
      const found = await this.#get(`/timeline?${query}`);
      if (this.#gone || mine !== this.#asked) return;
      this.#events = found.events;
      this.#unread = found.unread;
      this.#loaded = found;
      this.picture.truth();
      if (found.unread.length > 0) this.picture.away(`${this.#names(found.unread)} cannot be read now.`);
      if (this.#drag === null) this.#show();
    } catch (error) {
      if (!this.#gone && mine === this.#asked) this.picture.failed(error, 'The timeline');
    }
  }

  // Its parts

  #build(title) {
    this.words = h('p', { class: 'tl-words', 'aria-live': 'polite' });
    this.said = h('ul', { class: 'tl-said', 'aria-label': 'What followed what' });
    this.labels = h('ul', { class: 'tl-labels', 'aria-hidden': 'true' });
    this.plot = h('div', {
      class: 'tl-plot',
      tabindex: 0,
      role: 'group',
      'aria-label': 'Timeline',
      'aria-roledescription': 'timeline',
      onkeydown: (event) => this.#key(event),
      onpointerdown: (event) => this.#press(event),
      onpointermove: (event) => this.#move(event),
      onpointerup: (event) => this.#release(event),
      onpointercancel: () => this.#cancel(),
      onpointerleave: () => this.#drag === null && this.plot !== document.activeElement && this.#hover(null),
    });
    this.list = h('ol', { class: 'tl-list', reversed: true });
    this.summary = h('summary', {});
    this.rangeText = h('span', { class: 'tl-range' });
    this.spanButtons = segments('Length of the timeline', SPANS, this.#span, (value) => this.#go(null, value));
    const button = (label, sign, action) => h('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, onclick: action }, sign);
    this.nowButton = h('button', { type: 'button', class: 'quiet', onclick: () => this.#go(null, this.#span) }, 'Now');
    this.content = h(
      'div',
      { class: 'body tl' },
      h('div', { class: 'tl-frame' }, this.labels, this.plot),
      h(
        'div',
        { class: 'tl-tools' },
        button('Earlier', '‹', () => this.#shift(-0.5)),
        button('Later', '›', () => this.#shift(0.5)),
        button('Zoom in', '+', () => this.#zoom(0.5)),
        button('Zoom out', '−', () => this.#zoom(2)),
        this.nowButton,
        this.rangeText,
      ),
      this.said,
      this.words,
      (this.details = h('details', { ontoggle: () => this.#list() }, this.summary, this.list)),
    );
    this.picture = new Picture(this.content, { retry: () => this.refresh(), words: 'Loading the timeline…' });
    this.element = h('section', { class: 'panel', 'aria-label': title }, h('header', {}, h('h2', {}, title), h('span', { class: 'more' }, this.spanButtons)), this.picture.element, this.content);
    this.#resized.observe(this.plot);
    this.#say(null);
  }

  #resized = new ResizeObserver(() => this.#view !== null && Math.abs(this.#view.width - this.plot.clientWidth) > 1 && this.#show());

  #names(lanes) {
    return lanes.map((lane) => LANES.find(([each]) => each === lane)[1]).join(', ');
  }

  get #range() {
    const until = this.#until ?? now();
    return { since: until - this.#span, until };
  }

  #show() {
    if (this.#loaded === null) return;
    this.#paint();
    this.#list();
    this.#speak();
  }

  #paint() {
    const { since, until } = this.#range;
    const width = Math.max(200, this.plot.clientWidth || 200);
    const found = draw({ events: this.#events, since, until, now: now(), width, lanes: this.#lanes, unread: this.#unread, selected: this.#selected });
    this.#view = { ...found, width };
    this.plot.replaceChildren(found.svg);
    sync(
      this.labels,
      this.#lanes,
      ([lane]) => lane,
      ([, label, sign]) => h('li', { title: label }, icon(sign, 14), h('span', {}, label)),
      (element, [lane]) => (element.style.height = `${found.tops.get(lane).height}px`),
    );
    setText(this.rangeText, rangeText(since, until));
    this.nowButton.hidden = this.#until === null;
    this.plot.setAttribute('aria-label', `Timeline of ${rangeText(since, until)}. ${this.#count()}. ${HINT}`);
    for (const each of this.spanButtons.children) each.setAttribute('aria-pressed', String(this.#until === null && SPANS.find(([, label]) => label === each.textContent)[0] === this.#span));
  }

  #count() {
    const counts = this.#lanes.map(([lane, label]) => [this.#inside.filter((event) => event.lane === lane).length, label.toLowerCase()]).filter(([count]) => count > 0);
    return counts.length === 0 ? 'Nothing happened in this time' : counts.map(([count, label]) => `${label} ${count}`).join(', ');
  }

  get #inside() {
    const { since, until } = this.#range;
    return this.#events.filter((event) => event.start <= until && (event.end ?? until) >= since);
  }

  #list() {
    if (this.#loaded === null) return;
    const events = this.#inside.toReversed?.() ?? [...this.#inside].reverse();
    setText(this.summary, events.length === 0 ? 'Nothing happened in this time' : `As a list: ${events.length} ${events.length === 1 ? 'event' : 'events'}${this.#loaded.cut.length ? `, only the newest of ${this.#names(this.#loaded.cut)}` : ''}`);
    // What nobody looks at costs nothing.
    if (!this.details.open) return;
    sync(
      this.list,
      events,
      (event) => `${event.id} ${event.end} ${event.said} ${event.acknowledged_by} ${event.suppressed_by}`,
      (event) => {
        const { when, what, more } = wordsOf(event);
        const place = placeOf(event, this.#about);
        return h(
          'li',
          {},
          h('time', { datetime: new Date(event.start * 1000).toISOString() }, when),
          h('span', { class: `tl-dot tl-${toneOf(event)}` }),
          h('span', {}, place ? h('a', { href: place }, h('bdi', {}, what)) : h('bdi', {}, what), more ? h('span', { class: 'muted' }, ' · ', h('bdi', {}, more)) : null, event.said ? h('b', { class: 'tl-follow' }, h('bdi', {}, unbroken(event.said))) : null),
        );
      },
    );
  }

  #speak() {
    const told = this.#inside.filter((event) => event.said);
    const shown = told.slice(-SAID).reverse();
    this.said.hidden = shown.length === 0;
    sync(
      this.said,
      shown,
      (event) => `${event.id} ${event.said}`,
      (event) => h('li', { class: `tl-${toneOf(event)}` }, h('button', { type: 'button', onclick: () => this.#choose(event.id) }, h('bdi', {}, unbroken(event.said))), h('time', {}, `${date(event.start) === date(now()) ? '' : `${date(event.start)} `}${clock(event.start).slice(0, 5)}`)),
    );
  }

  #say(event) {
    if (!event) {
      this.words.replaceChildren(HINT);
      return;
    }
    const { when, what, more } = wordsOf(event);
    const place = placeOf(event, this.#about);
    this.words.replaceChildren(
      h('b', {}, when), ' ', h('bdi', {}, what), more ? ` · ${more}` : '', event.said ? '. ' : '', h('b', {}, unbroken(event.said ?? '')),
      ...(place ? [' ', h('a', { href: place }, 'Show')] : []),
    );
  }

  #hover(id) {
    const event = this.#events.find((each) => each.id === id) ?? this.#events.find((each) => each.id === this.#selected);
    if (this.words.dataset.id === String(event?.id)) return;
    this.words.dataset.id = String(event?.id);
    this.#say(event);
  }

  #choose(id) {
    this.#selected = id;
    this.#paint();
    this.#hover(id);
  }

  // The range

  #fromAddress(span, range) {
    const given = params.get('time');
    const [since, until] = given === '' && range !== null ? range : given.split('-').map(Number);
    this.#span = span;
    this.#until = null;
    if (until > since && since > 0) {
      this.#span = until - since;
      this.#until = until;
    } else if (since >= 60) this.#span = since;
    this.usual = span;
  }

  #go(until, span, { later = false } = {}) {
    const at = now();
    const range = clamp((until ?? at) - span, until ?? at, at);
    this.#span = until === null ? span : range.until - range.since;
    this.#until = until === null || range.until >= at - 1 ? null : range.until;
    if (this.#loaded !== null) this.#paint();
    if (later) return;
    const { since, until: end } = this.#range;
    params.set({ time: this.#until === null ? (this.#span === this.usual ? '' : Math.round(this.#span)) : `${Math.round(since)}-${Math.round(end)}` });
    if (this.#loaded !== null) this.#show();
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.refresh(), SETTLED_MS);
  }

  #shift(share) {
    this.#go((this.#until ?? now()) + share * this.#span, this.#span);
  }

  #zoom(factor, around = null) {
    const { since, until } = this.#range;
    const chosen = this.#events.find((event) => event.id === this.#selected);
    const fixed = around ?? (this.#until === null && !chosen ? until : chosen ? Math.min(chosen.end ?? until, until) : (since + until) / 2);
    const span = Math.max(60, this.#span * factor);
    const end = fixed + ((until - fixed) / this.#span) * span;
    this.#go(this.#until === null && fixed === until ? null : end, span);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && event.shiftKey) this.#shift(step * 0.25);
    else if (step) this.#read(step);
    else if (event.key === 'Home') this.#read(-Infinity);
    else if (event.key === 'End') this.#read(Infinity);
    else if (event.key === '+' || event.key === '=') this.#zoom(0.5);
    else if (event.key === '-') this.#zoom(2);
    else if (event.key === 'Escape') this.#choose(null);
    else if (event.key === 'Enter') this.words.querySelector('a')?.click();
    else return;
    event.preventDefault();
  }

  /** Read the next event, or the one before, in the order of time. */
  #read(step) {
    const events = this.#inside;
    if (events.length === 0) return;
    const at = events.findIndex((event) => event.id === this.#selected);
    const to = at === -1 ? (step > 0 && Number.isFinite(step) ? 0 : step > 0 ? events.length - 1 : Number.isFinite(step) ? events.length - 1 : 0) : Math.min(events.length - 1, Math.max(0, at + step));
    this.#choose(events[to].id);
  }

  // The pointer

  #place(event) {
    const box = this.plot.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #press(event) {
    if (event.button !== 0 || this.#view === null) return;
    const { x, y } = this.#place(event);
    const { since, until } = this.#range;
    this.#drag = { x, since, until, onAxis: y > this.#view.axis, moved: false, id: event.target.closest?.('[data-id]')?.dataset.id ?? null };
    this.plot.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const { x } = this.#place(event);
    const drag = this.#drag;
    if (drag === null) {
      this.#hover(event.target.closest?.('[data-id]')?.dataset.id ?? null);
      return;
    }
    if (Math.abs(x - drag.x) > CLICK_PX) drag.moved = true;
    if (!drag.moved) return;
    const scale = (drag.until - drag.since) / (this.#view.width - MARGIN);
    if (drag.onAxis) {
      this.plot.querySelector('.tl-brush')?.remove();
      const brush = h('i', { class: 'tl-brush' });
      brush.style.left = `${Math.min(x, drag.x)}px`;
      brush.style.width = `${Math.abs(x - drag.x)}px`;
      this.plot.append(brush);
    } else {
      this.plot.classList.add('tl-moving');
      this.#go(drag.until - (x - drag.x) * scale, drag.until - drag.since, { later: true });
    }
  }

  #release(event) {
    const drag = this.#drag;
    this.#cancel();
    if (drag === null) return;
    const { x } = this.#place(event);
    if (!drag.moved) {
      this.#choose(drag.id === this.#selected ? null : drag.id);
    } else if (drag.onAxis) {
      const at = (px) => drag.since + (Math.min(this.#view.width - MARGIN, Math.max(0, px)) / (this.#view.width - MARGIN)) * (drag.until - drag.since);
      const [from, to] = [at(drag.x), at(x)].sort((first, second) => first - second);
      this.#go(to, Math.max(60, to - from));
    } else this.#go(this.#until, this.#span);
  }

  #cancel() {
    this.#drag = null;
    this.plot.classList.remove('tl-moving');
    this.plot.querySelector('.tl-brush')?.remove();
  }
}
