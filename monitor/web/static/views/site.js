// One site: how it stands, its past, its response times, the phases of its last check.

import { bars, share } from '../bars.js';
import { responseChart } from '../chart.js';
import { ago, h, segments, setText, stateMark, sync } from '../dom.js';
import { clock, date, dayName, duration, milliseconds, now, percent } from '../format.js';
import { shownState, title } from '../state.js';

const PHASES = [['resolve', 'resolve'], ['connect', 'connect'], ['tls', 'TLS'], ['processing', 'server'], ['transfer', 'transfer']];
const SPANS = [['minute', '90 minutes'], ['hour', '90 hours'], ['day', '90 days']];
const REFRESH_MS = 15000;

export function site(root, { state, get, request, admin }, [id]) {
  const jobId = Number(id);
  let span = 'minute';
  let gone = false;
  let chart = null;
  let lastSeen = null;

  if (!state.jobs.has(jobId)) {
    root.append(h('p', { class: 'waiting' }, `There is no site ${id}. `, h('a', { href: '#/sites' }, 'All sites')));
    return { update() {} };
  }
  const job = () => state.jobs.get(jobId);

  const name = h('h1', {});
  const address = h('p', { class: 'muted mono' });
  const button = h('button', { type: 'button', onclick: toggle });
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const why = h('p', { class: 'error-line', hidden: true });
  const facts = h('dl', { class: 'facts' });
  const factOf = (label) => {
    const value = h('dd', {});
    facts.append(h('div', {}, h('dt', {}, label), value));
    return value;
  };
  const stateFact = factOf('State');
  const checkedFact = factOf('Last check');
  const nextFact = factOf('Next check');
  const timeFact = factOf('Response time');
  const shareFact = state.has('history') ? factOf('Up in the time shown') : null;
  const certificateFact = job().url.startsWith('https') || job().url.startsWith('wss') ? factOf('Certificate') : null;

  const uptimeBox = h('div', {});
  const scale = h('div', { class: 'scale' }, h('span', {}), h('span', {}, 'now'));
  const chartBox = h('div', { class: 'chart' });
  const phaseBox = h('div', { class: 'body' });
  const resultBody = h('tbody', {});

  root.append(
    h(
      'div',
      { class: 'title' },
      h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/sites' }, 'Sites')), name, address),
      h('div', { class: 'actions' }, admin() ? button : null),
    ),
    problem,
    why,
    facts,
  );
  if (state.has('history')) {
    root.append(
      h(
        'div',
        { class: 'stack' },
        h(
          'section',
          { class: 'panel' },
          h('header', {}, h('h2', {}, 'Uptime'), h('span', { class: 'more' }, segments('Time shown', SPANS, span, (value) => {
            span = value;
            refresh();
          }))),
          h('div', { class: 'body' }, uptimeBox, scale, h(
            'p',
            { class: 'legend' },
            ...[['up', 'all checks up'], ['some', 'some failed'], ['down', 'all failed'], ['gap', 'not checked']].map(([key, text]) => h('span', {}, h('i', { class: `key-${key}` }), text)),
          )),
        ),
        h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Response time'), h('span', { class: 'more muted wide-only' }, 'p50, p95 and p99 of each window; gaps were not checked')), h('div', { class: 'body' }, chartBox)),
        h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Phases of the last check')), phaseBox),
        h(
          'section',
          { class: 'panel' },
          h('header', {}, h('h2', {}, 'Last results')),
          h(
            'div',
            { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Last results' },
            h(
              'table',
              { class: 'table' },
              h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Time'), h('th', { scope: 'col' }, 'State'), h('th', { scope: 'col', class: 'n' }, 'Status'), h('th', { scope: 'col', class: 'n' }, 'Response'), h('th', { scope: 'col' }, 'Error'))),
              resultBody,
            ),
          ),
        ),
      ),
    );
  } else {
    root.append(h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Phases of the last check')), phaseBox));
  }

  async function toggle() {
    button.disabled = true;
    problem.hidden = true;
    try {
      const stop = job().state !== 'stopped';
      const entry = await request('POST', `/job/${jobId}/${stop ? 'stop' : 'start'}`);
      state.jobs.set(jobId, { ...job(), ...entry });
      fill();
    } catch (error) {
      problem.textContent = `That did not work: ${error.message}.`;
      problem.hidden = false;
    }
    button.disabled = false;
  }

  function fill() {
    const found = job();
    if (found === undefined) return;
    const how = shownState(found);
    setText(name, title(found));
    setText(address, `${found.kind === 'http' ? `${found.method} ` : ''}${found.url}`);
    if (stateFact.dataset.state !== `${how} ${found.since}`) {
      stateFact.dataset.state = `${how} ${found.since}`;
      stateFact.replaceChildren(stateMark(how), h('small', {}, ago(found.since, 'for')));
      if (found.since === null) stateFact.lastChild.replaceChildren(how === 'up' || how === 'down' ? 'for more than a day' : '');
    }
    button.hidden = !found.active;
    setText(button, found.state === 'stopped' ? 'Start' : 'Stop');
    button.className = found.state === 'stopped' ? 'primary' : '';
    const last = found.last;
    if (checkedFact.dataset.at !== String(last?.checked_at)) {
      checkedFact.dataset.at = String(last?.checked_at);
      checkedFact.replaceChildren(ago(last?.checked_at), h('small', {}, `every ${duration(found.interval)}`));
    }
    nextFact.replaceChildren(found.next_run === null ? '–' : ago(found.next_run, 'in'), h('small', {}, `given up after ${duration(found.timeout)}`));
    timeFact.replaceChildren(milliseconds(last?.response_time), h('small', {}, last?.status ? `status ${last.status}` : 'no status'));
    why.hidden = how !== 'down';
    setText(why, last?.error ?? (last?.status ? `status ${last.status} is not what is expected` : ''));
    if (certificateFact !== null) {
      const expires = last?.certificate_expires_at;
      certificateFact.replaceChildren(
        ...(expires ? [`${Math.floor((expires - now()) / 86400)} days left`, h('small', {}, `until ${date(expires)}`)] : ['–']),
      );
    }
    if (last && last.checked_at !== lastSeen) {
      lastSeen = last.checked_at;
      refreshCheck();
    }
  }

  let checking = false;
  async function refreshCheck() {
    if (checking || gone) return;
    checking = true;
    try {
      const entry = await get(`/job/${jobId}`);
      if (!gone) drawPhases(entry.last);
      if (state.has('history')) {
        const results = await get(`/job/${jobId}/result?limit=30`);
        if (!gone) drawResults(results.items, entry.last);
      }
    } catch {
      // As above: the banner says it.
    }
    checking = false;
  }

  function drawPhases(last) {
    if (!last?.phases) return;
    const values = PHASES.map(([key, label]) => [label, last.phases[key]]);
    const total = values.reduce((sum, [, value]) => sum + value, 0);
    const bar = h('div', { class: 'phases', 'aria-hidden': 'true' });
    values.forEach(([, value], index) => {
      if (value === 0) return;
      const part = h('i', { class: `phase-${index}` });
      part.style.flexGrow = String(Math.max(value / total, 0.002));
      bar.append(part);
    });
    phaseBox.replaceChildren(
      bar,
      h('dl', { class: 'phase-list' }, values.map(([label, value], index) => h('div', {}, h('dt', {}, h('i', { class: `phase-${index}` }), label), h('dd', {}, value === 0 ? '–' : milliseconds(value))))),
    );
  }

  function drawResults(items, last) {
    // The last one may not be in the database yet.
    const rows = last && !items.some((item) => item.scheduled_at === last.scheduled_at) ? [last, ...items] : items;
    sync(
      resultBody,
      rows.slice(0, 30),
      (item) => item.scheduled_at,
      (item) =>
        h(
          'tr',
          {},
          h('td', {}, h('time', {}, `${dayName(item.checked_at) === 'Today' ? '' : `${date(item.checked_at)} `}${clock(item.checked_at, true)}`)),
          h('td', {}, stateMark(item.up ? 'up' : 'down')),
          h('td', { class: 'n' }, item.status ?? '–'),
          h('td', { class: 'n' }, milliseconds(item.response_time)),
          h('td', {}, item.error ?? '', item.missed ? h('span', { class: 'muted' }, ` ${item.missed} missed before`) : null),
        ),
    );
  }

  async function refresh() {
    if (!state.has('history') || gone) return;
    const asked = span;
    try {
      const [uptime, metrics] = await Promise.all([get(`/uptime?granularity=${asked}&job=${jobId}`), get(`/job/${jobId}/metric?granularity=${asked}`)]);
      if (gone || asked !== span) return;
      uptimeBox.replaceChildren(bars(uptime.items[0], { tall: true }));
      setText(scale.firstChild, `${SPANS.find(([value]) => value === asked)[1]} ago`);
      setText(shareFact, percent(share(uptime.items[0])));
      chart ??= responseChart(chartBox);
      chart.draw(metrics.items, uptime.items[0]);
    } catch {
      // As above.
    }
  }

  fill();
  refresh();
  const timer = setInterval(refresh, REFRESH_MS);

  return {
    update(kinds) {
      if (kinds.has('jobs')) fill();
    },
    theme() {
      chart?.redraw();
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      chart?.destroy();
    },
  };
}
