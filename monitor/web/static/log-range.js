// The time range of the logs: the last minutes or hours, or from one time to another.

import { h } from './dom.js';
import { clock, date } from './format.js';

const LAST = [['', 'All that is kept'], ['900', 'Last 15 min'], ['3600', 'Last hour'], ['21600', 'Last 6 h'], ['86400', 'Last day'], ['custom', 'From … until …']];

const localTime = (seconds) => `${date(seconds)}T${clock(seconds)}`;

/** A control that keeps the range in the address: `last` (s), or `from` and `until` (epoch s). */
export class LogRange {
  #params;

  constructor(params, onchange) {
    this.#params = params;
    this.from = h('input', { type: 'datetime-local', step: 1, 'aria-label': 'From', onchange: () => this.#custom(onchange) });
    this.until = h('input', { type: 'datetime-local', step: 1, 'aria-label': 'Until', onchange: () => this.#custom(onchange) });
    this.custom = h('span', { class: 'custom-range' }, this.from, ' – ', this.until);
    this.choice = h(
      'select',
      {
        'aria-label': 'Time range',
        onchange: () => {
          const value = this.choice.value;
          if (value === 'custom') {
            this.custom.hidden = false;
            this.from.focus();
            return;
          }
          params.set({ last: value, from: '', until: '' });
          this.draw();
          onchange();
        },
      },
      LAST.map(([value, text]) => h('option', { value }, text)),
    );
    this.elements = [this.choice, this.custom];
    this.draw();
  }

  draw() {
    const absolute = this.#number('from') !== null || this.#number('until') !== null;
    const last = this.#params.get('last');
    this.choice.value = absolute ? 'custom' : LAST.some(([value]) => value === last) ? last : '';
    this.custom.hidden = !absolute;
    this.from.value = this.#number('from') === null ? '' : localTime(this.#number('from'));
    this.until.value = this.#number('until') === null ? '' : localTime(this.#number('until'));
  }

  set(from, until) {
    this.#params.set({ last: '', from: from.toFixed(3), until: until.toFixed(3) });
    this.draw();
  }

  /** Whether new entries belong to it. */
  get isLive() {
    return this.#number('until') === null;
  }

  /** The keys of a query for it. */
  query() {
    const last = Number(this.#params.get('last'));
    const found = [];
    if (last > 0) found.push(['timewindow', String(last)]);
    for (const key of ['from', 'until']) if (this.#number(key) !== null) found.push([key, String(this.#number(key))]);
    return found;
  }

  #number(key) {
    const text = this.#params.get(key);
    return text !== '' && Number.isFinite(Number(text)) ? Number(text) : null;
  }

  #custom(onchange) {
    const read = (input) => (input.value === '' ? '' : new Date(input.value).getTime() / 1000);
    const [from, until] = [read(this.from), read(this.until)];
    this.until.setCustomValidity(from !== '' && until !== '' && until <= from ? 'This must be after the first time.' : '');
    if (!this.until.reportValidity()) return;
    this.#params.set({ last: '', from, until });
    onchange();
  }
}
