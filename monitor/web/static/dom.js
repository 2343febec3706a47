// Elements, icons, and lists that change in place.

import { tell } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';
const PRESS_MS = 50;

/** Make an element: h('a', {href: '#', class: 'x', onclick: f}, 'text', child, null). */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make an SVG element. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes ?? {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const PATHS = {
  up: 'M5 12.5l4.5 4.5L19 7',
  ok: 'M5 12.5l4.5 4.5L19 7',
  down: 'M6 6l12 12M18 6L6 18',
  degraded: 'M12 4v9M12 18v.5',
  late: 'M12 6v6l4 3M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18',
  stopped: 'M8 6v12M16 6v12',
  inactive: 'M5 12h14',
  unknown: 'M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 2.3M12 18v.5',
  starting: 'M12 3a9 9 0 1 0 9 9',
  stopping: 'M12 3a9 9 0 1 0 9 9',
  new: 'M12 5v14M5 12h14',
  upgraded: 'M12 19V6M6 11l6-6 6 6',
  rolledback: 'M4 9h10a5 5 0 0 1 0 10h-3M8 5L4 9l4 4',
  removed: 'M5 12h14',
  ready: 'M5 12.5l4.5 4.5L19 7',
  loading: 'M12 3a9 9 0 1 0 9 9',
  lock: 'M6 11h12v9H6zM8 11V8a4 4 0 0 1 8 0v3',
  unplugged: 'M4 4l16 16M8 8v3a4 4 0 0 0 5 4M10 4v3M16 4v6a4 4 0 0 1-.5 2M12 16v4',
  overview: 'M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z',
  sites: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18',
  incidents: 'M12 3.5l9 16H3zM12 10v4M12 16.5v.5',
  models: 'M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9',
  logs: 'M5 6h14M5 11h14M5 16h9',
  topics: 'M4 7h16M4 12h16M4 17h16M7 4v16',
  relay: 'M4 12h4M16 6h4M16 18h4M8 12c5 0 3-6 8-6M8 12c5 0 3 6 8 6',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19',
  moon: 'M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z',
  auto: 'M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18',
};

/** Draw an icon; it says nothing to a screen reader. */
export function icon(name, size = 16) {
  return s(
    'svg',
    { viewBox: '0 0 24 24', width: size, height: size, 'aria-hidden': 'true', fill: 'none' },
    s('path', {
      d: PATHS[name] ?? PATHS.unknown,
      stroke: 'currentColor',
      'stroke-width': 2.4,
      'stroke-linecap': 'round',
      'stroke-linejoin': 'round',
    }),
  );
}

/** A state in a sign and a word. */
export function stateMark(state, word = state) {
  return h('span', { class: `state ${state}` }, icon(state), word);
}

/** Set an element's text only where it differs, so that nothing flickers or loses selection. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make a list's children those of `items`, in order, keeping the elements of items that stay.
 * `create(item)` makes an element, `update(element, item)` brings it up to date.
 */
export function sync(list, items, key, create, update) {
  clearTimeout(list.later);
  // A list that moves under a press swallows the click: wait until the button is released.
  if (list.matches(':active')) {
    list.later = setTimeout(sync, PRESS_MS, list, items, key, create, update);
    return;
  }
  const known = (list.known ??= new Map());
  const wanted = new Set();
  let at = list.firstElementChild;
  for (const item of items) {
    const id = key(item);
    wanted.add(id);
    let element = known.get(id);
    if (element === undefined) known.set(id, (element = create(item)));
    update?.(element, item);
    if (element === at) at = at.nextElementSibling;
    else list.insertBefore(element, at);
  }
  for (const [id, element] of known) {
    if (!wanted.has(id)) {
      element.remove();
      known.delete(id);
    }
  }
}

/** A time that tells how long ago it was, and keeps to it; see tick() in format.js. */
export function ago(seconds, prefix = '') {
  const element = h('time', { 'data-ago': seconds ?? '', 'data-prefix': prefix });
  tell(element);
  return element;
}

/** Give a segmented control: `options` are [value, label]. */
export function segments(label, options, chosen, onchoose) {
  const buttons = options.map(([value, text]) =>
    h(
      'button',
      {
        type: 'button',
        'aria-pressed': String(value === chosen),
        onclick: (event) => {
          for (const button of buttons) button.setAttribute('aria-pressed', 'false');
          event.currentTarget.setAttribute('aria-pressed', 'true');
          onchoose(value);
        },
      },
      text,
    ),
  );
  return h('div', { class: 'segments', role: 'group', 'aria-label': label }, buttons);
}
