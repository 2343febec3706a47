// Uptime bars: a window a bar, a gap where nothing was checked.

import { s } from './dom.js';
import { clock, date, percent } from './format.js';

/** The share of checks that were up, or null where there was none. */
export function share(uptime) {
  let checks = 0;
  let failures = 0;
  for (let i = 0; i < uptime.checks.length; i += 1) {
    checks += uptime.checks[i];
    failures += uptime.failures[i];
  }
  return checks === 0 ? null : (checks - failures) / checks;
}

const PITCH = 4;
const HEIGHT = 26;

/** Draw bars: four paths, however many windows there are. */
export function bars(uptime, { tall = false } = {}) {
  const paths = { 'b-up': '', 'b-some': '', 'b-down': '', 'b-gap': '' };
  const { checks, failures } = uptime;
  let gaps = 0;
  for (let i = 0; i < checks.length; i += 1) {
    const x = i * PITCH;
    if (checks[i] === 0) {
      gaps += 1;
      paths['b-gap'] += `M${x} ${HEIGHT - 3}h3v3h-3z`;
    } else if (failures[i] === 0) paths['b-up'] += `M${x} 0h3v${HEIGHT}h-3z`;
    else if (failures[i] === checks[i]) paths['b-down'] += `M${x} 0h3v${HEIGHT}h-3z`;
    else paths['b-some'] += `M${x} 0h3v${HEIGHT}h-3z`;
  }
  const found = share(uptime);
  const label =
    found === null
      ? 'no checks in this time'
      : `${percent(found)} up in ${checks.length} windows, ${gaps} without checks`;
  const svg = s(
    'svg',
    {
      class: tall ? 'uptime tall' : 'uptime',
      viewBox: `0 0 ${checks.length * PITCH - 1} ${HEIGHT}`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    ...Object.entries(paths).map(([name, d]) => s('path', { class: name, d })),
  );
  if (tall) {
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const i = Math.min(checks.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * checks.length)));
      const at = uptime.start + i * uptime.width;
      const what = checks[i] === 0 ? 'no checks' : failures[i] === 0 ? `${checks[i]} checks, all up` : `${failures[i]} of ${checks[i]} checks down`;
      let hint = svg.querySelector('title');
      if (hint === null) svg.append((hint = s('title', {})));
      hint.textContent = `${date(at)} ${clock(at)}: ${what}`;
    });
  }
  return svg;
}

/** A line of the last values, as high as its box. */
export function spark(values) {
  const top = Math.max(1e-9, ...values);
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(27 - (value / top) * 25).toFixed(1)}`);
  return s(
    'svg',
    { viewBox: '0 0 100 28', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    s('polyline', { points: points.join(' '), fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'vector-effect': 'non-scaling-stroke' }),
  );
}
