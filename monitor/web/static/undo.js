// What was done, said with a way back.

import { h, setText } from './dom.js';

const SHOWN_MS = 20000;
let box = null;
let timer = 0;

/** Say what was done; `undo` takes it back, and returns what to say then (or a promise of it). */
export function offerUndo(words, undo) {
  const button = h('button', { type: 'button', title: 'Ctrl+Z', 'aria-keyshortcuts': 'Control+Z Meta+Z', onclick: takeBack }, 'Undo');
  const close = h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: hide }, '×');
  const said = h('span', {}, words);
  box ??= make();
  box.replaceChildren(said, button, close);
  box.hidden = false;
  wait();

  async function takeBack() {
    button.disabled = true;
    try {
      const more = await undo();
      setText(said, typeof more === 'string' ? more : 'Taken back.');
      button.remove();
      close.focus();
    } catch (error) {
      setText(said, `That cannot be taken back: ${error.message}.`);
      button.disabled = false;
    }
    wait();
  }
}

/** What was done may be far from where the keyboard is: it takes it back from anywhere but a field. */
function make() {
  addEventListener('keydown', (event) => {
    const isUndo = event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    const button = box.querySelector('[aria-keyshortcuts]');
    if (!isUndo || button === null || event.target.closest('input, textarea, select')) return;
    event.preventDefault();
    button.click();
  });
  return document.body.appendChild(h('div', { class: 'undo', role: 'status', hidden: true }));
}

function wait() {
  clearTimeout(timer);
  timer = setTimeout(() => (box.contains(document.activeElement) || box.matches(':hover') ? wait() : hide()), SHOWN_MS);
}

function hide() {
  clearTimeout(timer);
  box.hidden = true;
  box.replaceChildren();
}
