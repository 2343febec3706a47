// Where things stand on a timeline: ticks, rows, marks. Pure.

const STEPS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000];

/** The local times of ticks in a range, at most `most` of them, and their step in s. */
export function ticks(since, until, most) {
  const step = STEPS.find((each) => (until - since) / each <= most) ?? STEPS.at(-1);
  const found = [];
  // Hours and days begin by the clock on the wall, even after it was changed.
  for (let wall = Math.ceil((since - shiftAt(since)) / step) * step; wall + shiftAt(until) <= until; wall += step) {
    const at = wall + shiftAt(wall + shiftAt(wall));
    if (at >= since && at > (found.at(-1) ?? -Infinity)) found.push(at);
  }
  return { step, found };
}

/** From the clock on the wall to UTC, in s. */
const shiftAt = (at) => new Date(at * 1000).getTimezoneOffset() * 60;

/**
 * Put spans {left, right} (px) into rows so that those of one row do not touch. What does not fit
 * into `most` rows is `over` others in the last one.
 */
export function rows(spans, most, gap = 3) {
  const ends = [];
  for (const span of spans) {
    let row = ends.findIndex((end) => end + gap <= span.left);
    span.over = row === -1 && ends.length >= most;
    if (row === -1) row = span.over ? most - 1 : ends.length;
    ends[row] = Math.max(ends[row] ?? -Infinity, span.right);
    span.row = row;
  }
  return Math.max(1, ends.length);
}

/** A range that neither reaches into the future nor is shorter or longer than can be read. */
export function clamp(since, until, now, { shortest = 60, longest = 400 * 86400 } = {}) {
  const length = Math.min(longest, Math.max(shortest, until - since));
  let end = since + (until - since) / 2 + length / 2;
  if (end > now) end = now;
  return { since: end - length, until: end };
}
