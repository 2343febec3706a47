// A button that opens a few others. A select would not do: in it, each press of an arrow key is a choice.

import { h } from './dom.js';

/** A button `text` for what `title` says; `entries` are [text, what to do when it is chosen]. */
export function menu(title, text, entries) {
  const list = h(
    'span',
    { class: 'menu-list', role: 'group', 'aria-label': title, hidden: true },
    ...entries.map(([label, act]) =>
      h('button', { type: 'button', class: 'quiet', onclick: () => {
        show(false);
        button.focus();
        act();
      } }, label),
    ),
  );
  const button = h('button', { type: 'button', 'aria-label': title, 'aria-expanded': 'false', onclick: () => show(list.hidden) }, text);
  const box = h('span', { class: 'menu', onkeydown: key }, button, list);
  const elsewhere = (event) => box.contains(event.target) || show(false);

  function show(open) {
    list.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
    const how = open ? addEventListener : removeEventListener;
    for (const kind of ['pointerdown', 'focusin', 'scroll']) how(kind, elsewhere, true);
    if (!open) return;
    place();
    list.firstChild.focus({ preventScroll: true });
  }

  /** Below the button, or above it where there is no room; no panel cuts it off. */
  function place() {
    const at = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = list;
    const below = at.bottom + 4 + height <= innerHeight;
    list.style.top = `${below ? at.bottom + 4 : Math.max(4, at.top - 4 - height)}px`;
    list.style.left = `${Math.max(4, Math.min(at.right - width, innerWidth - width - 4))}px`;
  }

  function key(event) {
    if (list.hidden) return;
    const all = [...list.children];
    const at = all.indexOf(document.activeElement);
    if (event.key === 'Escape') {
      show(false);
      button.focus();
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      all.at((at + (event.key === 'ArrowDown' ? 1 : -1)) % all.length).focus();
    } else return;
    event.preventDefault();
  }
  return box;
}
