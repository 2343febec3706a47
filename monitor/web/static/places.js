// Back and Forward lead to the same place: how far down, and where the focus was.

const SAVE_MS = 150;
const WAIT_MS = 5000;

/** A selector that finds an element again in the same view later, or null. */
function selectorOf(element) {
  if (element === null || element === document.body) return null;
  if (element.id) return `#${CSS.escape(element.id)}`;
  for (const name of ['href', 'aria-label', 'data-key']) {
    const value = element.getAttribute(name);
    if (value !== null) return `${element.localName}[${name}=${CSS.escape(value)}]`;
  }
  return null;
}

/** Remembers places in the entries of the history, for the view inside `root`. */
export class Places {
  #root;
  #timer = 0;
  #wanted = null;

  constructor(root) {
    this.#root = root;
    history.scrollRestoration = 'manual';
    const soon = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#save(), SAVE_MS);
    };
    addEventListener('scroll', soon, { passive: true });
    addEventListener('focusin', soon);
    // A link is about to be followed.
    addEventListener('click', () => this.#save(), { capture: true });
    addEventListener('popstate', (event) => {
      clearTimeout(this.#timer);
      this.#wanted = event.state?.place ? { ...event.state.place, until: performance.now() + WAIT_MS } : null;
    });
    // Who moves meanwhile wants to be elsewhere.
    for (const kind of ['wheel', 'keydown', 'pointerdown', 'touchmove']) {
      addEventListener(kind, () => (this.#wanted = null), { passive: true, capture: true });
    }
    if (history.state?.place) this.#wanted = { ...history.state.place, until: performance.now() + WAIT_MS };
  }

  #save() {
    clearTimeout(this.#timer);
    if (this.#wanted !== null) return;
    const active = document.activeElement;
    const focus = this.#root.contains(active) ? selectorOf(active) : null;
    history.replaceState({ ...history.state, place: { scroll: Math.round(scrollY), focus } }, '');
  }

  /** A view was made: begin at its top, unless this is a step back to a place. */
  arrive() {
    clearTimeout(this.#timer);
    if (this.#wanted === null) {
      scrollTo(0, 0);
      // What was clicked is gone with its view: the keyboard continues in the new one.
      if (document.activeElement === document.body) this.#root.focus({ preventScroll: true });
      return;
    }
    scrollTo(0, 0);
    this.settle();
  }

  /** Go to the place as soon as enough is there; called whenever the view may have grown. */
  settle() {
    const wanted = this.#wanted;
    if (wanted === null) return;
    if (Math.abs(scrollY - wanted.scroll) > 1) scrollTo(0, wanted.scroll);
    const isThere = Math.abs(scrollY - wanted.scroll) <= 1;
    const element = wanted.focus === null ? null : this.#root.querySelector(wanted.focus);
    if (isThere && (wanted.focus === null || element !== null)) {
      element?.focus({ preventScroll: true });
      this.#wanted = null;
    } else if (performance.now() < wanted.until) {
      setTimeout(() => this.#wanted === wanted && this.settle(), 50);
    } else {
      this.#wanted = null;
    }
  }
}
