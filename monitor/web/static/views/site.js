// One site: how it stands, its past, its response times, the phases of its last check.

import { ReadableBars } from '../bars.js';
import { certificateText } from '../certificates.js';
import { ResponseChart, fieldsOf } from '../chart.js';
import { conditionOf, problemOf } from '../conditions.js';
import { ago, h, segments, setText, stateMark, sync } from '../dom.js';
import { clock, date, dayName, duration, isolated, milliseconds } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';
import { link } from '../route.js';
import { siteActions } from '../site-actions.js';
import { UptimeFigures } from '../site-uptime.js';
import { shownState, title } from '../state.js';
import { TimelinePanel } from '../timeline.js';
import { offerUndo } from '../undo.js';
import { untilChoice } from '../until.js';

const PHASES = [['resolve', 'resolve'], ['connect', 'connect'], ['tls', 'TLS'], ['processing', 'server'], ['transfer', 'transfer']];
const SPANS = [['minute', '90 minutes'], ['hour', '90 hours'], ['day', '90 days']];
const REFRESH_MS = 15000;

export function site(root, context, [id]) {
  const { state, get, request, admin, show, params, settle } = context;
  const jobId = Number(id);
  let span = SPANS.some(([each]) => each === params.get('span')) ? params.get('span') : 'minute';
  let gone = false;
  let lastSeen = null;

  if (!state.jobs.has(jobId)) {
    const absent = new Picture([]);
    const say = () => absent.of(conditionOf(state, 'jobs') ?? { kind: 'empty', words: `There is no site ${id}.` });
    say();
    root.append(absent.element, h('p', { class: 'waiting' }, h('a', { href: '#/sites' }, 'All sites')));
    return {
      update() {
        if (state.jobs.has(jobId)) show();
        else say();
      },
      destroy: () => absent.destroy(),
    };
  }
  const job = () => state.jobs.get(jobId);

  const name = h('h1', { dir: 'auto' });
  const address = h('p', { class: 'muted mono address', dir: 'auto' });
  const tagLine = h('p', { class: 'tags', 'aria-label': 'Tags' });
  const button = h('button', { type: 'button', onclick: () => switchTo(job().state === 'stopped') });
  const pause = untilChoice('Pause the checks', 'Pause', (until) => switchTo(false, until));
  const checkButton = h('button', { type: 'button', onclick: checkNow }, 'Check now');
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
  const certificateFact = factOf(h('a', { href: '#/sites/certificates' }, 'Certificate'));

  const readable = new ReadableBars();
  const uptimeBox = readable.element;
  const scale = h('div', { class: 'scale' }, h('span', {}), h('span', {}, 'now'));
  readable.box.after(scale);
  const chart = new ResponseChart();
  const phaseBox = h('div', { class: 'body' });
  const locationBody = h('tbody', {});
  const locationBox = h(
    'section',
    { class: 'panel', hidden: true },
    h('header', {}, h('h2', {}, 'Locations')),
    h(
      'div',
      { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Locations' },
      h(
        'table',
        { class: 'table locations' },
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Location'), h('th', { scope: 'col' }, 'State'), h('th', { scope: 'col' }, 'Checked'), h('th', { scope: 'col', class: 'n' }, 'Status'), h('th', { scope: 'col', class: 'n' }, 'Response'), h('th', { scope: 'col' }, 'Error'))),
        locationBody,
      ),
    ),
  );
  const resultBody = h('tbody', {});
  const figures = new UptimeFigures();
  const uptimeBody = h('div', { class: 'body' }, figures.element, uptimeBox, legend());
  let field = params.get('field') || null;
  const fieldChoice = h('select', { class: 'more', 'aria-label': 'What the chart shows', hidden: true, onchange: () => {
    field = fieldChoice.value || null;
    params.set({ field });
    refresh();
  } });
  const open = state.has('incidents') ? new IncidentList(context, { wanted: (each) => each.job === jobId, title: 'Open incidents of this site' }) : null;
  const timeline = TimelinePanel.isOf(state) ? new TimelinePanel(context, { job: jobId }) : null;
  const chartBody = h('div', { class: 'body' }, chart.element);
  const resultBox = h(
    'div',
    { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Last results' },
    h(
      'table',
      { class: 'table results' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Time'), h('th', { scope: 'col' }, 'State'), h('th', { scope: 'col', class: 'n' }, 'Status'), h('th', { scope: 'col', class: 'n' }, 'Response'), h('th', { scope: 'col' }, 'Error'))),
      resultBody,
    ),
  );
  const uptimePicture = new Picture(uptimeBody, { retry: refresh });
  const chartPicture = new Picture(chartBody, { retry: refresh });
  const phasePicture = new Picture(phaseBox, { retry: refreshCheck });
  const resultPicture = new Picture(resultBox, { retry: refreshCheck });

  root.append(
    h(
      'div',
      { class: 'title' },
      h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/sites' }, 'Sites')), name, address, tagLine),
      h('div', { class: 'actions' }, admin() ? [checkButton, button, pause] : null, siteActions(context, jobId)),
    ),
    problem,
    why,
    facts,
    ...(open ? [open.element] : []),
    ...(timeline ? [h('div', { class: 'apart' }, timeline.element)] : []),
  );
  if (state.has('history')) {
    root.append(
      h(
        'div',
        { class: 'stack' },
        locationBox,
        h(
          'section',
          { class: 'panel' },
          h('header', {}, h('h2', {}, 'Uptime'), h('span', { class: 'more' }, segments('Time shown', SPANS, span, (value) => {
            span = value;
            params.set({ span: value === 'minute' ? '' : value });
            uptimePicture.loading();
            refresh();
          }))),
          uptimePicture.element,
          uptimeBody,
        ),
        h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Response time'), fieldChoice), chartPicture.element, chartBody),
        h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Phases of the last check')), phasePicture.element, phaseBox),
        h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Last results')), resultPicture.element, resultBox),
      ),
    );
  } else {
    root.append(h('div', { class: 'stack' }, locationBox, h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Phases of the last check')), phasePicture.element, phaseBox)));
  }

  /** Start the checks, or stop them, until a time or until they are started. */
  async function switchTo(run, until = null) {
    button.disabled = true;
    problem.hidden = true;
    const path = (run, until) => `/job/${jobId}/${run ? 'start' : 'stop'}${until === null ? '' : `?until=${until}`}`;
    const before = job().stopped_until ?? null;
    try {
      state.learn(await request('POST', path(run, until)));
      fill();
      const how = run ? 'started' : until === null ? 'stopped' : `paused until ${shortMoment(until)}`;
      offerUndo(`${isolated(title(job()))}: checks are ${how}.`, async () => state.learn(await request('POST', path(!run, run ? before : null))));
    } catch (error) {
      problem.textContent = `That did not work: ${error.message}.`;
      problem.hidden = false;
    }
    button.disabled = false;
  }

  async function checkNow() {
    checkButton.disabled = true;
    problem.hidden = true;
    setText(checkButton, 'Checking…');
    try {
      await request('POST', `/job/${jobId}/check`);
    } catch (error) {
      problem.textContent = `It could not be checked now: ${error.message}.`;
      problem.hidden = false;
    }
    setText(checkButton, 'Check now');
    checkButton.disabled = false;
    await refreshCheck();
  }

  function fill() {
    const found = job();
    if (found === undefined) return;
    const shown = shownState(found);
    // Since when it is up is known, not since when it is degraded.
    const how = shown === 'degraded' ? 'up' : shown;
    setText(name, title(found));
    setText(address, `${found.kind === 'http' ? `${found.method} ` : ''}${found.url}`);
    const signature = `${how} ${found.since} ${found.stopped_until} ${found.last?.degraded} ${how === 'late' ? found.last?.checked_at : ''}`;
    if (stateFact.dataset.state !== signature) {
      stateFact.dataset.state = signature;
      stateFact.replaceChildren(stateMark(how), h('small', {}, ago(found.since, 'for')));
      if (found.since === null) stateFact.lastChild.replaceChildren(how === 'up' || how === 'down' ? 'for more than a day' : how === 'unknown' && found.last === null ? 'not checked yet' : '');
      // What is known of it is its last result, however old.
      if (how === 'late' || (how === 'unknown' && found.last)) stateFact.lastChild.replaceChildren(`last known ${found.last.up === false || found.state === 'down' ? 'down' : 'up'}, `, ago(found.last.checked_at));
      if (found.stopped_until) stateFact.append(h('small', {}, `until ${shortMoment(found.stopped_until)}`));
      if (found.last?.degraded && how === 'up') stateFact.append(stateMark('degraded'));
    }
    if (tagLine.dataset.tags !== found.tags.join('\n')) {
      tagLine.dataset.tags = found.tags.join('\n');
      tagLine.hidden = found.tags.length === 0;
      tagLine.replaceChildren(...found.tags.map((tag) => h('a', { class: 'tag', href: link('sites', { tag }) }, h('bdi', {}, tag))));
    }
    button.hidden = !found.active;
    checkButton.hidden = !found.active;
    pause.hidden = !found.active || found.state === 'stopped';
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
    const expires = last?.certificate_expires_at;
    certificateFact.parentElement.hidden = !expires;
    if (expires) {
      const { tone, text } = certificateText(expires);
      certificateFact.replaceChildren(h('span', { class: `tone-${tone}` }, text), h('small', {}, `until ${date(expires)}`));
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
      // What has come as a whole has the phases and the locations, too.
      const known = job();
      const entry = known?.last?.phases ? known : await get(`/job/${jobId}`);
      if (gone) return;
      if (entry.last?.phases) phasePicture.truth();
      else phasePicture.empty(entry.last ? 'This check has no phases.' : 'It has not been checked yet.');
      drawPhases(entry.last);
      drawLocations(entry.locations);
      if (state.has('history')) {
        const results = await get(`/job/${jobId}/result?limit=30`);
        if (gone) return;
        drawResults(results.items, entry.last);
        if (resultBody.childElementCount === 0) resultPicture.empty('There are no results yet.');
        else resultPicture.truth();
      }
    } catch (error) {
      if (gone) return;
      if (phasePicture.kind === 'loading') phasePicture.failed(error, 'The last check');
      if (state.has('history')) resultPicture.failed(error, 'The results');
    } finally {
      checking = false;
    }
    settle();
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

  function drawLocations(items) {
    locationBox.hidden = items.length === 0;
    sync(
      locationBody,
      items,
      (item) => `${item.location} ${item.scheduled_at}`,
      (item) =>
        h(
          'tr',
          {},
          h('td', {}, item.location || '–'),
          h('td', {}, stateMark(item.up ? 'up' : 'down')),
          h('td', {}, ago(item.checked_at)),
          h('td', { class: 'n' }, item.status ?? '–'),
          h('td', { class: 'n' }, milliseconds(item.response_time)),
          h('td', { class: 'long' }, item.error ?? ''),
        ),
    );
  }

  function drawResults(items, last) {
    // The last one may not be in the database yet.
    const known = (item) => item.scheduled_at === last.scheduled_at && item.location === last.location;
    const rows = last && !items.some(known) ? [last, ...items] : items;
    sync(
      resultBody,
      rows.slice(0, 30),
      (item) => `${item.scheduled_at} ${item.location}`,
      (item) =>
        h(
          'tr',
          {},
          h('td', {}, h('time', {}, `${dayName(item.checked_at) === 'Today' ? '' : `${date(item.checked_at)} `}${clock(item.checked_at, true)}`)),
          h('td', {}, stateMark(item.up ? (item.degraded ? 'degraded' : 'up') : 'down')),
          h('td', { class: 'n status' }, item.status ?? '–'),
          h('td', { class: 'n' }, milliseconds(item.response_time)),
          h('td', { class: 'long' }, item.location ? h('span', { class: 'muted' }, `${item.location} `) : null, item.error ?? '', item.missed ? h('span', { class: 'muted' }, ` ${item.missed} missed before`) : null),
        ),
    );
  }

  async function refresh() {
    if (!state.has('history') || gone) return;
    const asked = span;
    try {
      const [uptime, metrics, spans] = await Promise.all([get(`/uptime?granularity=${asked}&job=${jobId}`), get(`/job/${jobId}/metric?granularity=${asked}`), get(`/job/${jobId}/uptime`)]);
      if (gone || asked !== span) return;
      readable.draw(uptime.items[0]);
      setText(scale.firstChild, `${SPANS.find(([value]) => value === asked)[1]} ago`);
      figures.draw(spans);
      offerFields(metrics.items);
      const checked = uptime.items[0].checks.some((count) => count > 0);
      const problem = problemOf(state, 'history');
      for (const picture of [uptimePicture, chartPicture]) {
        if (checked) picture.truth();
        else picture.empty('It was not checked in this time.');
        if (problem !== null) picture.away(`The newest checks may be missing. ${problem.words}`);
      }
      if (metrics.items.length > 0) chart.draw(metrics.items, uptime.items[0], field);
      else if (checked) chartPicture.empty('No check was answered in this time.');
    } catch (error) {
      if (gone || asked !== span) return;
      uptimePicture.failed(error, 'The uptime');
      chartPicture.failed(error, 'The response times');
    }
    settle();
  }

  function offerFields(metrics) {
    const fields = [...fieldsOf(metrics).keys()];
    if (field !== null && metrics.length > 0 && !fields.includes(field)) field = null;
    fieldChoice.hidden = fields.length === 0;
    const offered = fields.join();
    if (fieldChoice.dataset.offered !== offered) {
      fieldChoice.dataset.offered = offered;
      fieldChoice.replaceChildren(h('option', { value: '' }, 'response time'), ...fields.map((each) => h('option', { value: each }, each)));
    }
    fieldChoice.value = field ?? '';
  }

  fill();
  if (job().last === null) refreshCheck();
  refresh();
  const timer = setInterval(refresh, REFRESH_MS);

  return {
    update(kinds) {
      if (kinds.has('list') && !state.jobs.has(jobId)) show();
      else if (kinds.has('jobs')) fill();
      open?.update(kinds);
      timeline?.update(kinds);
      if (kinds.has('hello')) {
        refresh();
        refreshCheck();
      }
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      chart.destroy();
      timeline?.destroy();
      for (const each of [uptimePicture, chartPicture, phasePicture, resultPicture]) each.destroy();
    },
  };
}

/** A time without its day if that is today. */
function shortMoment(seconds) {
  return `${dayName(seconds) === 'Today' ? '' : `${date(seconds)} `}${clock(seconds).slice(0, 5)}`;
}

function legend() {
  return h(
    'p',
    { class: 'legend' },
    ...[['up', 'all checks up'], ['some', 'some failed'], ['down', 'all failed'], ['gap', 'not checked']].map(([key, text]) => h('span', {}, h('i', { class: `key-${key}` }), text)),
  );
}
