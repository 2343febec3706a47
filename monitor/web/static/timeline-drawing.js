// The picture of a timeline: lanes with their events, what followed what, and the clock below.

import { s } from './dom.js';
import { clock, date } from './format.js';
import { rows, ticks } from './timeline-layout.js';

export const LANES = [
  ['incidents', 'Incidents', 'down'],
  ['models', 'Models', 'models'],
  ['logs', 'Errors in logs', 'logs'],
  ['feed', 'Feed', 'relay'],
  ['maintenance', 'Maintenance', 'stopped'],
];
const ROW = 16;
const BAR = 12;
const PAD = 6;
const AXIS = 26;
const MARK = 7;
// What happens now is seen whole.
export const MARGIN = 28;
// Of a text "+12".
const MORE = 26;
// What is nearer to what it followed than this is not joined to it: one would see only a knot.
const APART = 3;
// An end that is open is drawn from this width on.
const OPEN = 10;
const MOST_ROWS = { incidents: 5, models: 3, logs: 1, feed: 1, maintenance: 2 };
const MARKS = {
  deployed: 'M-4 0h8M0 -4v8',
  upgraded: 'M0 4v-8M-3.5 -0.5l3.5 -3.5l3.5 3.5',
  rolledback: 'M4 0h-8M-0.5 -3.5l-3.5 3.5l3.5 3.5',
  removed: 'M-4 0h8',
  failed: 'M-3.5 -3.5l7 7M3.5 -3.5l-7 7',
};

/** How an event looks: `down`, `warn`, `known` (acknowledged), `quiet` (suppressed) or its own. */
export function toneOf(event) {
  if (event.lane === 'incidents') {
    if (event.suppressed_by) return 'quiet';
    if (event.acknowledged_by) return 'known';
    return ['down', 'site', 'rollout', 'feed'].includes(event.kind) ? 'down' : 'warn';
  }
  return { errors: 'warn', gap: 'gap', window: 'window', silence: 'window', failed: 'down', rolledback: 'warn', removed: 'idle' }[event.kind] ?? 'change';
}

/** Draw events of a range into an SVG of a width; `places` gets where each event is. */
export function draw({ events, since, until, now, width, lanes, unread, selected }) {
  const x = (at) => ((at - since) / (until - since)) * (width - MARGIN);
  const places = new Map();
  const layers = { grid: [], bands: [], links: [], marks: [] };
  let top = 0;
  const tops = new Map();
  const more = [];
  for (const [lane] of lanes) {
    const spans = events
      .filter((event) => event.lane === lane && event.start <= until && (event.end ?? now) >= since)
      .map((event) => spanOf(event, x, width, now))
      .sort((first, second) => first.left - second.left);
    const count = rows(spans, MOST_ROWS[lane]);
    const height = count * ROW + 2 * PAD;
    tops.set(lane, { top, height });
    layers.grid.push(s('rect', { class: unread.includes(lane) ? 'tl-lane tl-unread' : 'tl-lane', x: 0, y: top, width, height: height - 1 }));
    let last = null; // the mark of the last row, which those over it are counted in
    for (const span of spans) {
      const y = top + PAD + span.row * ROW + ROW / 2;
      places.set(span.event.id, { ...span, y });
      if (lane === 'models' && span.over && last !== null) {
        last.others += 1;
        if (span.event.id !== selected) continue;
      } else if (span.row === MOST_ROWS[lane] - 1) last = { span, y, others: 0 };
      layers.marks.push(markOf(span, y, span.event.id === selected));
      if (last?.span === span && lane === 'models') more.push(last);
    }
    top += height;
  }
  const { step, found } = ticks(since, until, Math.max(2, Math.floor(width / 84)));
  for (const at of found) {
    const place = x(at);
    layers.grid.push(s('line', { class: 'tl-grid', x1: place, x2: place, y1: 0, y2: top }));
    const day = new Date(at * 1000).getHours() + new Date(at * 1000).getMinutes() === 0;
    const text = step >= 86400 || day ? date(at).slice(5) : clock(at).slice(0, step < 60 ? 8 : 5);
    if (place > 18 && place < width - 18) layers.grid.push(s('text', { class: day ? 'tl-tick tl-day' : 'tl-tick', x: place, y: top + 17, 'text-anchor': 'middle' }, text));
  }
  for (const { event } of places.values()) {
    if (event.lane === 'maintenance') layers.bands.push(s('rect', { class: 'tl-band', x: places.get(event.id).left, y: 0, width: places.get(event.id).right - places.get(event.id).left, height: top }));
    const from = places.get(event.after);
    const to = places.get(event.id);
    const isSelected = event.id === selected || event.after === selected;
    if (from && (isSelected || Math.abs(to.left - (from.at ?? from.left)) >= APART)) layers.links.push(linkOf(from, to, isSelected));
  }
  for (const { span, y, others } of more) {
    if (others === 0) continue;
    const isLeft = span.at + MARK + MORE > width;
    layers.marks.push(s('text', { class: 'tl-more', x: isLeft ? span.at - MARK - 4 : span.at + MARK + 4, y: y + 4, 'text-anchor': isLeft ? 'end' : 'start' }, `+${others}`));
  }
  if (now >= since && now <= until + (until - since) / 50) layers.links.push(s('line', { class: 'tl-now', x1: Math.min(x(now), width - 1), x2: Math.min(x(now), width - 1), y1: 0, y2: top }));
  const svg = s(
    'svg',
    { class: 'tl-svg', width, height: top + AXIS, viewBox: `0 0 ${width} ${top + AXIS}`, 'aria-hidden': 'true' },
    s('rect', { class: 'tl-axis', x: 0, y: top, width, height: AXIS }),
    ...layers.grid,
    ...layers.bands,
    ...layers.links,
    ...layers.marks,
  );
  return { svg, places, tops, axis: top };
}

function spanOf(event, x, width, now) {
  const from = Math.max(-20, x(event.start));
  const to = Math.min(width + 20, x(event.end ?? now));
  if (event.lane === 'models') return { event, from, at: to, left: Math.min(from, to - MARK), right: to + MARK };
  const right = Math.max(to, from + 5);
  return { event, left: from, right };
}

function markOf(span, y, isSelected) {
  const { event, left, right } = span;
  const tone = toneOf(event);
  const group = s('g', { class: `tl-mark tl-${tone}${isSelected ? ' tl-selected' : ''}`, 'data-id': event.id });
  if (event.lane === 'models') {
    if (span.at - span.from > 1) group.append(s('line', { class: 'tl-rollout', x1: span.from, x2: span.at, y1: y, y2: y }));
    group.append(
      s('circle', { cx: span.at, cy: y, r: MARK }),
      s('path', { class: 'tl-glyph', d: MARKS[event.kind] ?? MARKS.removed, transform: `translate(${span.at} ${y})` }),
    );
  } else {
    const width = right - left;
    const height = event.lane === 'logs' ? Math.min(ROW, 5 + 2.4 * Math.log2(1 + event.count)) : BAR;
    group.append(s('rect', { x: left, y: y - height / 2, width, height, rx: Math.min(3, width / 2) }));
    if (event.end === null && width >= OPEN) group.append(s('path', { class: 'tl-open', d: `M${right - 1} ${y - height / 2}v${height}` }));
    if (event.count > 1 && event.lane === 'incidents' && width > 26) group.append(s('text', { class: 'tl-count', x: left + 5, y: y + 4 }, String(event.count)));
  }
  // A mark is easier to hit than it is large.
  group.append(s('rect', { class: 'tl-hit', x: left - 3, y: y - ROW / 2, width: Math.max(right - left + 6, 14), height: ROW }));
  return group;
}

function linkOf(from, to, isSelected) {
  const start = from.at ?? from.left;
  const end = Math.max(0, to.left);
  const bend = Math.min(30, Math.abs(end - start) / 2 + 6);
  return s('path', {
    class: isSelected ? 'tl-link tl-selected' : 'tl-link',
    d: `M${start} ${from.y}C${start + bend} ${from.y} ${end - bend} ${to.y} ${end} ${to.y}`,
  });
}
