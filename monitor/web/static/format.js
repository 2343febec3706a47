// Times, durations and numbers as people read them. Instants are in s since the epoch.

let skew = 0;

/** Take over the server's clock: a wrong clock here must not make data look fresh or old. */
export function setServerTime(seconds) {
  skew = seconds - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + skew;
}

export function duration(seconds) {
  const value = Math.max(0, Math.round(seconds));
  if (value < 60) return `${value} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 86400) {
    const minutes = Math.floor((value % 3600) / 60);
    return `${Math.floor(value / 3600)} h${minutes ? ` ${minutes} min` : ''}`;
  }
  const hours = Math.floor((value % 86400) / 3600);
  return `${Math.floor(value / 86400)} d${hours ? ` ${hours} h` : ''}`;
}

/** A sentence whose times are not cut between the number and its unit. */
export const unbroken = (text) => text.replace(/(\d) (?=(?:ms|s|min|h|d)\b)/g, '$1\u00a0');

/** A response time: three figures that matter. */
export function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const ms = seconds * 1000;
  if (ms >= 10000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 10) return `${ms.toFixed(1)} ms`;
  return `${ms.toFixed(2)} ms`;
}

export function percent(share) {
  if (share === null) return '–';
  if (share === 1) return '100 %';
  // Never round a failure away.
  return `${(Math.floor(share * 10000) / 100).toFixed(2)} %`;
}

export function bytes(count) {
  if (count < 1024) return `${count} B`;
  for (const unit of ['KiB', 'MiB', 'GiB']) {
    count /= 1024;
    if (count < 1024 || unit === 'GiB') return `${count.toFixed(count < 10 ? 1 : 0)} ${unit}`;
  }
  return '';
}

export function count(number) {
  return Math.round(number).toLocaleString('en').replaceAll(',', ' ');
}

export function rate(number) {
  if (number === null) return '–';
  return number < 10 ? number.toFixed(1) : count(number);
}

const two = (number) => String(number).padStart(2, '0');

export function clock(seconds, withMilliseconds = false) {
  const at = new Date(seconds * 1000);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return withMilliseconds ? `${text}.${String(at.getMilliseconds()).padStart(3, '0')}` : text;
}

/** The time zone of all times on the page, and how far it is from UTC now. */
export function zone() {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const minutes = -new Date().getTimezoneOffset();
  const hours = `${Math.floor(Math.abs(minutes) / 60)}${minutes % 60 ? `:${two(Math.abs(minutes) % 60)}` : ''}`;
  const offset = minutes === 0 ? '' : ` (UTC${minutes < 0 ? '−' : '+'}${hours})`;
  return `${name}${offset}`;
}

/** By how much the clock here differs from the daemon's, in s. */
export function clockSkew() {
  return -skew;
}

export function date(seconds) {
  const at = new Date(seconds * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

export function dayName(seconds) {
  const day = date(seconds);
  if (day === date(now())) return 'Today';
  // Not every day has 24 hours.
  const before = new Date(now() * 1000);
  before.setDate(before.getDate() - 1);
  if (day === date(before / 1000)) return 'Yesterday';
  return day;
}

const OTHER_WAY = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;

/** A name for plain text, where no bdi can stand: its direction does not reach its neighbours. */
export function isolated(name) {
  return OTHER_WAY.test(name) ? `\u2068${name}\u2069` : name;
}

/** Bring a `time[data-ago]` up to date. */
export function tell(element, at = now()) {
  const then = element.dataset.ago;
  let text = element.dataset.empty ?? '–';
  if (then !== '') {
    const passed = at - Number(then);
    const prefix = element.dataset.prefix;
    if (prefix === 'for') text = `for ${duration(passed)}`;
    else if (prefix === 'in') text = passed >= 0 ? 'now' : `in ${duration(-passed)}`;
    else text = passed < 1.5 ? 'now' : `${duration(passed)} ago`;
    const title = `${date(Number(then))} ${clock(Number(then))}`;
    if (element.title !== title) element.title = title;
  }
  if (element.textContent !== text) element.textContent = text;
}

/** Bring all of them in the document up to date. */
export function tick(root = document) {
  const at = now();
  for (const element of root.querySelectorAll('time[data-ago]')) tell(element, at);
}

/** A range in words. */
export function rangeText(since, until) {
  const days = date(since) === date(until);
  const text = (at, full) => `${full ? `${date(at)} ` : ''}${clock(at).slice(0, 5)}`;
  return `${text(since, true)} to ${text(until, !days)}, ${duration(until - since)}`;
}
