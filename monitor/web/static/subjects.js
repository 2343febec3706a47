// Sites and tags to choose from: a field that takes several of them, one after the other.

import { h, setText } from './dom.js';
import { title } from './state.js';

const OFFERED = 30;

/** A site by its name; those of the same name differ by the id. */
export const nameOf = (job) => `${title(job)} (${job.id})`;

let numbered = 0;

/** Several of what `options()` returns, as [value, text]; `values` are those that are chosen. */
export class Several {
  values;
  #options;

  constructor(label, options, values = []) {
    this.#options = options;
    this.values = values;
    const id = `choice-${(numbered += 1)}`;
    this.offered = h('datalist', { id: `${id}-all` });
    this.chips = h('ul', { class: 'chips', 'aria-label': `Chosen: ${label.toLowerCase()}` });
    this.wrong = h('p', { class: 'field-error', role: 'alert', hidden: true });
    this.input = h('input', {
      id,
      type: 'text',
      list: `${id}-all`,
      autocomplete: 'off',
      onfocus: () => this.#offer(),
      oninput: () => this.#input(),
      onchange: () => this.take(),
      onkeydown: (event) => {
        if (event.key !== 'Enter' || this.input.value === '') return;
        event.preventDefault();
        this.take();
      },
    });
    this.element = h('div', { class: 'field' }, h('label', { for: id }, label), this.chips, this.input, this.offered, this.wrong, h('p', { class: 'field-text' }, 'type a part of the name and choose; Enter adds it'));
    this.#draw();
  }

  /** Add what is typed, if there is just one of it. */
  take() {
    const typed = this.input.value.trim().toLowerCase();
    if (typed === '') return;
    const all = this.#options();
    const found = all.find(([, text]) => text.toLowerCase() === typed);
    const like = found ? [found] : all.filter(([, text]) => text.toLowerCase().includes(typed));
    this.wrong.hidden = like.length === 1;
    if (like.length !== 1) {
      setText(this.wrong, like.length ? `There are ${like.length} of these.` : 'There is none of this name.');
      return;
    }
    this.input.value = '';
    if (!this.values.includes(like[0][0])) this.values.push(like[0][0]);
    this.#draw();
  }

  clear() {
    this.values = [];
    this.#draw();
  }

  /** An option that was clicked comes as its whole text. */
  #input() {
    this.wrong.hidden = true;
    if (this.#options().some(([, text]) => text === this.input.value)) this.take();
    this.#offer();
  }

  #offer() {
    const typed = this.input.value.trim().toLowerCase();
    const like = this.#options().filter(([value, text]) => !this.values.includes(value) && text.toLowerCase().includes(typed));
    this.offered.replaceChildren(...like.slice(0, OFFERED).map(([, text]) => h('option', { value: text })));
  }

  #draw() {
    const texts = new Map(this.#options());
    this.chips.hidden = this.values.length === 0;
    this.chips.replaceChildren(
      ...this.values.map((value) => {
        const text = texts.get(value) ?? value;
        return h('li', {}, h('bdi', {}, text), h('button', { class: 'quiet', type: 'button', 'aria-label': `Without ${text}`, onclick: () => this.#remove(value) }, '×'));
      }),
    );
  }

  #remove(value) {
    this.values = this.values.filter((each) => each !== value);
    this.#draw();
    this.input.focus();
  }
}
