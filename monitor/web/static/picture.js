// What a panel shows when it is not simply true: that it loads, is empty, may not be seen, is old,
// or that its source does not work. Each is a picture of its own, made here only.

import { h, icon, setText } from './dom.js';
import { clock } from './format.js';

const SIGNS = { loading: 'loading', empty: 'inactive', refused: 'lock', stale: 'late', away: 'unplugged' };
const AGAIN_MS = [3000, 60000];

/** All pictures on the page; each depends on the connection. */
const shown = new Set();
let lostSince = null;

/** Say in every panel that the connection is lost, since when (ms since the epoch); null: it is back. */
export function setLost(since) {
  lostSince = since;
  for (const each of shown) {
    if (each.element.isConnected || !each.wasSeen) each.draw();
    else shown.delete(each);
  }
}

/**
 * A picture for a panel whose elements `content` are shown only when there is something true to
 * show. `retry` loads it again: it is offered, and tried by itself.
 *
 * Its methods are the six states. After truth() or empty(), stale and away are a line above what
 * was last known, with its time; before, they stand alone.
 */
export class Picture {
  #content;
  #retry;
  #state = { kind: 'loading', words: 'Loading…' };
  #known = null; // ms since the epoch of the last truth
  #empty = '';
  #timer = 0;
  #tries = 0;
  wasSeen = false;

  constructor(content, { retry = null, words = 'Loading…' } = {}) {
    this.#content = [content].flat();
    this.#retry = retry;
    this.#state.words = words;
    this.sign = h('span', { class: 'picture-sign' });
    this.words = h('p', {});
    this.again = h('button', { type: 'button', hidden: true, onclick: () => this.#load() }, 'Try again');
    this.element = h('div', { class: 'picture' }, this.sign, this.words, this.again);
    shown.add(this);
    this.draw();
  }

  get kind() {
    return this.element.dataset.kind;
  }

  loading(words = 'Loading…') {
    if (this.#known === null || this.#state.kind === 'refused') this.#set('loading', words);
  }

  /** There is something, and it is shown. */
  truth() {
    this.#known = Date.now();
    this.#empty = '';
    this.#set('truth', '');
  }

  /** There is nothing, and that is the truth. */
  empty(words) {
    this.#known = Date.now();
    this.#empty = words;
    this.#set('empty', words);
  }

  /** The token lacks the right. */
  refused(words) {
    this.#known = null;
    this.#set('refused', words);
  }

  /** What it comes from does not work; what was known stays. */
  away(words) {
    this.#set('away', words);
  }

  /** A request failed: an Error of api.js says how. */
  failed(error, what) {
    if (error.status === 401 || error.status === 403) {
      this.refused(`${what} may not be seen with this token: ${error.message}.`);
      return;
    }
    this.#set('away', `${what} cannot be loaded: ${error.message}.`);
    // What is wrong with the request stays wrong.
    if (this.#retry === null || error.status === 422) return;
    clearTimeout(this.#timer);
    const pause = Math.min(AGAIN_MS[0] * 2 ** this.#tries, AGAIN_MS[1]);
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#load(), pause);
  }

  /** Of data that is sent: its condition (see conditions.js), or null for the truth. */
  of(condition) {
    if (condition === null) this.truth();
    else this[condition.kind](condition.words);
  }

  destroy() {
    clearTimeout(this.#timer);
    shown.delete(this);
  }

  #load() {
    if (this.wasSeen && !this.element.isConnected) return;
    this.#retry?.();
  }

  #set(kind, words) {
    clearTimeout(this.#timer);
    if (kind !== 'away') this.#tries = 0;
    this.#state = { kind, words };
    this.draw();
  }

  draw() {
    this.wasSeen ||= this.element.isConnected;
    let { kind, words } = this.#state;
    if (lostSince !== null && kind !== 'refused') {
      kind = 'stale';
      words = this.#known === null ? 'Not connected, and nothing is known yet.' : `${this.#empty} From ${clock(Math.min(this.#known, lostSince) / 1000)}, before the connection was lost.`.trim();
    } else if (kind === 'away' && this.#known !== null) {
      words = `${words} This is what was known at ${clock(this.#known / 1000)}.${this.#empty && ` ${this.#empty}`}`;
    }
    const hasContent = this.#known !== null && this.#empty === '' && kind !== 'refused';
    this.element.hidden = kind === 'truth';
    if (this.element.dataset.kind !== kind) {
      this.element.dataset.kind = kind;
      this.sign.replaceChildren(icon(SIGNS[kind] ?? 'unknown', 20));
      // A screen reader speaks what interrupts; not that something loads or is empty.
      if (kind === 'refused' || kind === 'away') this.element.setAttribute('role', 'status');
      else this.element.removeAttribute('role');
    }
    this.element.classList.toggle('line', hasContent);
    setText(this.words, words);
    this.again.hidden = kind !== 'away' || this.#retry === null;
    for (const each of this.#content) each.hidden = !hasContent;
  }
}
