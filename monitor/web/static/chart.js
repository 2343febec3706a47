// Response times by window with uPlot, which is loaded when the first chart is shown.

import { h } from './dom.js';
import { clock, date, milliseconds } from './format.js';

let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(
      h('link', { rel: 'stylesheet', href: '/static/vendor/uPlot.min.css' }),
      h('script', { src: '/static/vendor/uPlot.iife.min.js', onload: resolve, onerror: reject }),
    );
  });
  return loading;
}

/** Make a chart in `box`: draw(metrics, uptime) shows windows, gaps as gaps. */
export function responseChart(box) {
  let plot = null;
  let data = null;
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
    plot?.destroy();
    const muted = colour('--muted');
    const line = colour('--line');
    const grid = { stroke: line, width: 1 };
    const ticks = { stroke: line, width: 1 };
    // A window between two gaps is a point: a line alone would not show it.
    const alone = (series, index) => series[index] !== null && (series[index - 1] ?? null) === null && (series[index + 1] ?? null) === null;
    const points = { size: 5, filter: (self, at) => data[at].map((_, index) => index).filter((index) => alone(data[at], index)) };
    const value = (_, raw) => milliseconds(raw);
    plot = new window.uPlot(
      {
        width: Math.max(260, box.clientWidth),
        height: 230,
        cursor: { y: false, points: { size: 7 } },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, (high ?? 0.001) * 1.1 || 0.001] } },
        axes: [
          { stroke: muted, grid, ticks, font: '12px system-ui', space: 64, values: (_, splits, at, space, step) => splits.map((split) => (step >= 86400 ? date(split).slice(5) : clock(split).slice(0, 5))) },
          { stroke: muted, grid, ticks, font: '12px system-ui', size: 66, values: (_, splits) => splits.map((split) => (split === 0 ? '0' : milliseconds(split).replace(/\.0+ /, ' '))) },
        ],
        series: [
          { label: 'Time', value: (_, raw) => (raw === null ? '–' : `${date(raw)} ${clock(raw).slice(0, 5)}`) },
          { label: 'p50', stroke: colour('--accent'), width: 2, value, points },
          { label: 'p95', stroke: colour('--warn-bar'), width: 1.5, value, points },
          { label: 'p99', stroke: colour('--down-bar'), width: 1.5, dash: [4, 3], value, points },
        ],
      },
      data,
      box,
    );
    plot.root.setAttribute('role', 'img');
    plot.root.setAttribute('aria-label', 'Response times by window; the numbers are in the table below');
  }

  const resized = new ResizeObserver(() => {
    if (plot !== null && Math.abs(plot.width - box.clientWidth) > 2) plot.setSize({ width: Math.max(260, box.clientWidth), height: 230 });
  });
  resized.observe(box);

  return {
    async draw(metrics, uptime) {
      const byStart = new Map(metrics.map((each) => [each.start, each]));
      const starts = uptime.checks.map((_, i) => uptime.start + i * uptime.width);
      const of = (key) => starts.map((start) => byStart.get(start)?.[key] ?? null);
      data = [starts, of('p50'), of('p95'), of('p99')];
      await load();
      if (gone) return;
      if (plot === null) make();
      else plot.setData(data);
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
