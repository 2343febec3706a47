// Numbers by window with uPlot, which is loaded when the first chart is shown.

import { h } from './dom.js';
import { clock, date, milliseconds } from './format.js';

const COLOURS = ['--accent', '--warn-bar', '--down-bar', '--up-bar', '--muted'];
const RESPONSE = ['p50', 'p95', 'p99'];
// Fields of a result that have no unit of time.
const PLAIN = new Set(['status', 'attempt', 'missed', 'job_id', 'producer', 'up', 'matched', 'degraded']);

let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(
      h('link', { rel: 'stylesheet', href: new URL('vendor/uPlot.min.css', import.meta.url).href }),
      h('script', { src: new URL('vendor/uPlot.iife.min.js', import.meta.url).href, onload: resolve, onerror: reject }),
    );
  });
  return loading;
}

/** The fields that were measured in some window, and what is known of each. */
export function fieldsOf(metrics) {
  const found = new Map();
  for (const { fields } of metrics) {
    for (const [field, values] of Object.entries(fields ?? {})) found.set(field, Object.keys(values).filter((name) => name !== 'sum').slice(0, COLOURS.length));
  }
  return found;
}

/** Make a chart in `box`: draw(metrics, uptime, field) shows windows, gaps as gaps; a zoom stays. */
export function responseChart(box) {
  let plot = null;
  let data = null;
  let shown = null; // the field, null for the response time
  let names = RESPONSE;
  let zoomed = false;
  let gone = false;

  function colour(name) {
    // A colour as the page shows it now: canvas knows no light-dark().
    const probe = h('span', { hidden: true });
    probe.style.color = `var(${name})`;
    box.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function make() {
    const range = zoomed ? { min: plot.scales.x.min, max: plot.scales.x.max } : null;
    plot?.destroy();
    const muted = colour('--muted');
    const line = colour('--line');
    const grid = { stroke: line, width: 1 };
    const ticks = { stroke: line, width: 1 };
    // A window between two gaps is a point: a line alone would not show it.
    const alone = (series, index) => series[index] !== null && (series[index - 1] ?? null) === null && (series[index + 1] ?? null) === null;
    const points = { size: 5, filter: (self, at) => data[at].map((_, index) => index).filter((index) => alone(data[at], index)) };
    const text = PLAIN.has(shown) ? (raw) => (raw === null || raw === undefined ? '–' : String(Math.round(raw * 100) / 100)) : milliseconds;
    plot = new window.uPlot(
      {
        width: Math.max(260, box.clientWidth),
        height: 230,
        cursor: { y: false, points: { size: 7 } },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, (high ?? 0.001) * 1.1 || 0.001] } },
        axes: [
          { stroke: muted, grid, ticks, font: '12px system-ui', space: 64, values: (_, splits, at, space, step) => splits.map((split) => (step >= 86400 ? date(split).slice(5) : clock(split).slice(0, 5))) },
          { stroke: muted, grid, ticks, font: '12px system-ui', size: 66, values: (_, splits) => splits.map((split) => (split === 0 ? '0' : text(split).replace(/\.0+ /, ' '))) },
        ],
        series: [
          { label: 'Time', value: (_, raw) => (raw === null ? '–' : `${date(raw)} ${clock(raw).slice(0, 5)}`) },
          ...names.map((label, i) => ({ label, stroke: colour(COLOURS[i]), width: i === 0 ? 2 : 1.5, dash: i === 2 ? [4, 3] : i === 4 ? [2, 2] : undefined, value: (_, raw) => text(raw), points })),
        ],
        hooks: {
          setScale: [
            (self, key) => {
              if (key === 'x') zoomed = self.scales.x.min > data[0][0] || self.scales.x.max < data[0].at(-1);
              box.dataset.zoomed = String(zoomed);
            },
          ],
        },
      },
      data,
      box,
    );
    if (range !== null) plot.setScale('x', range);
    plot.root.setAttribute('role', 'img');
    plot.root.setAttribute('aria-label', `${shown ?? 'Response times'} by window; the numbers are in the table below`);
  }

  const resized = new ResizeObserver(() => {
    if (plot !== null && Math.abs(plot.width - box.clientWidth) > 2) plot.setSize({ width: Math.max(260, box.clientWidth), height: 230 });
  });
  resized.observe(box);

  return {
    async draw(metrics, uptime, field = null) {
      const byStart = new Map(metrics.map((each) => [each.start, each]));
      const starts = uptime.checks.map((_, i) => uptime.start + i * uptime.width);
      const wanted = field === null ? RESPONSE : (fieldsOf(metrics).get(field) ?? []);
      const value = (window, name) => (field === null ? window?.[name] : window?.fields?.[field]?.[name]) ?? null;
      const other = field !== shown || wanted.join() !== names.join();
      // Another span has other times: there is nothing to keep of a zoom.
      if (data !== null && data[0][1] - data[0][0] !== uptime.width) zoomed = false;
      data = [starts, ...wanted.map((name) => starts.map((start) => value(byStart.get(start), name)))];
      shown = field;
      names = wanted;
      await load();
      if (gone) return;
      if (plot === null || other) make();
      else if (zoomed) {
        const { min, max } = plot.scales.x;
        plot.setData(data, false);
        plot.setScale('x', { min, max });
      } else plot.setData(data);
    },
    redraw() {
      if (plot !== null) make();
    },
    destroy() {
      gone = true;
      resized.disconnect();
      plot?.destroy();
    },
  };
}
