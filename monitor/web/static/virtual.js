// Long lists: only the rows in sight are elements; the others are a height.

const BEYOND_PX = 400;

/**
 * Make `list` show the items of set(), with rows of any height, in the window's own scrolling.
 *
 * `key(item)` names an item, `create(item)` makes its row (an li), `update(row, item)` brings it up
 * to date, `estimate` is a row's height in px until it was seen, and `range(items)` is called with
 * those in sight.
 */
export function virtualList(list, { key, create, update = () => {}, estimate, range = () => {} }) {
  let items = [];
  let offsets = new Float64Array(1);
  const heights = new Map();
  const rows = new Map(); // key -> element
  let frame = 0;
  let width = 0;
  list.classList.add('virtual');

  function place(from = 0) {
    if (offsets.length !== items.length + 1) {
      const before = offsets;
      offsets = new Float64Array(items.length + 1);
      offsets.set(before.subarray(0, Math.min(from + 1, offsets.length)));
    }
    for (let i = from; i < items.length; i += 1) offsets[i + 1] = offsets[i] + (heights.get(key(items[i])) ?? estimate);
  }

  /** The index of the row at a height. */
  function at(height) {
    let low = 0;
    let high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (offsets[middle + 1] <= height) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function render() {
    frame = 0;
    const box = list.getBoundingClientRect();
    if (box.width !== width) {
      width = box.width;
      heights.clear();
      place();
    }
    const first = at(Math.max(0, -box.top - BEYOND_PX));
    const last = Math.min(items.length, at(innerHeight - box.top + BEYOND_PX) + 1);
    const wanted = new Set();
    const fresh = [];
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    for (let i = first; i < last; i += 1) {
      const name = key(items[i]);
      wanted.add(name);
      let row = rows.get(name);
      if (row === undefined) {
        row = create(items[i]);
        rows.set(name, row);
        fresh.push([i, name, row]);
      } else if (!heights.has(name)) {
        fresh.push([i, name, row]);
      }
      update(row, items[i]);
      if (row.at !== i || row.of !== items.length) {
        row.at = i;
        row.of = items.length;
        row.dataset.odd = i % 2;
        row.setAttribute('aria-posinset', i + 1);
        row.setAttribute('aria-setsize', items.length);
      }
    }
    for (const [name, row] of rows) {
      // The row with the focus stays, wherever it is, or the keyboard would lose its place.
      if (wanted.has(name) || row.contains(focused)) continue;
      row.remove();
      rows.delete(name);
    }
    // In the order of the list, which is that of the keyboard and of what is read aloud.
    let next = list.firstElementChild;
    for (let i = first; i < last; i += 1) {
      const row = rows.get(key(items[i]));
      if (row === next) next = next.nextElementSibling;
      else list.insertBefore(row, next);
    }
    let moved = 0;
    let changed = Infinity;
    for (const [i, name, row] of fresh) {
      const height = row.offsetHeight;
      const before = heights.get(name) ?? estimate;
      heights.set(name, height);
      if (height === before) continue;
      changed = Math.min(changed, i);
      if (offsets[i] < -box.top) moved += height - before;
    }
    if (changed < Infinity) place(changed);
    for (let i = first; i < last; i += 1) {
      const row = rows.get(key(items[i]));
      const top = `${offsets[i]}px`;
      if (row.style.top !== top) row.style.top = top;
    }
    const height = `${offsets[items.length]}px`;
    if (list.style.height !== height) list.style.height = height;
    // What is read must not move when rows above it turn out higher than thought.
    if (moved !== 0) scrollBy(0, moved);
    range(items.slice(at(Math.max(0, -box.top)), at(Math.max(0, innerHeight - box.top)) + 1));
    if (changed < Infinity) soon();
  }

  function soon() {
    if (frame === 0) frame = requestAnimationFrame(render);
  }

  const resized = new ResizeObserver(soon);
  resized.observe(list);
  addEventListener('scroll', soon, { passive: true });
  addEventListener('resize', soon);

  return {
    /** Show other items; with `keep`, what is in sight stays where it is. */
    set(others, { keep = false } = {}) {
      const top = -list.getBoundingClientRect().top;
      const anchor = keep && top > 0 && items.length > 0 ? items[Math.min(at(top), items.length - 1)] : null;
      const before = anchor === null ? 0 : offsets[at(top)];
      items = others;
      if (heights.size > 4 * items.length + 1000) heights.clear();
      place();
      if (anchor !== null) {
        const index = items.findIndex((item) => key(item) === key(anchor));
        if (index >= 0 && offsets[index] !== before) {
          list.style.height = `${offsets[items.length]}px`;
          scrollBy(0, offsets[index] - before);
        }
      }
      render();
    },
    /** The rows in sight, again. */
    refresh: soon,
    /** A row's height has changed. */
    resize(name) {
      heights.delete(name);
      place();
      soon();
    },
    /** The row of a key, if it is in sight. */
    row: (name) => rows.get(name),
    /** Bring an item into the middle of the window. */
    reveal(name) {
      const index = items.findIndex((item) => key(item) === name);
      if (index < 0) return false;
      const top = list.getBoundingClientRect().top + scrollY;
      scrollTo(0, top + offsets[index] - innerHeight / 2);
      render();
      return true;
    },
    destroy() {
      cancelAnimationFrame(frame);
      resized.disconnect();
      removeEventListener('scroll', soon);
      removeEventListener('resize', soon);
    },
  };
}
