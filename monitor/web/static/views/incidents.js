// Incidents: open ones first, then what was, grouped as the timeline does; and one of them in full.

import { conditionOf } from '../conditions.js';
import { h, icon, setText, stateMark, sync } from '../dom.js';
import { clock, date, duration, now, unbroken } from '../format.js';
import { IncidentList, lengthOf, moment, subjectPlace } from '../incident-list.js';
import { Picture } from '../picture.js';
import { SOON_MS, TimelinePanel, placeOf } from '../timeline.js';

const PAST_S = 30 * 86400;
const REFRESH_MS = 60000;
const AROUND_S = 900;
const ROWS = 100;

export function incidents(root, context, [id]) {
  return id ? one(root, context, id) : all(root, context);
}

function all(root, context) {
  const { state, get, params, settle } = context;
  let events = [];
  let gone = false;
  let soon = 0;
  let most = ROWS;
  let filter = params.get('q').toLowerCase();
  const open = state.has('incidents') ? new IncidentList(context, { always: true }) : null;
  const timeline = new TimelinePanel(context, {}, { span: 604800 });
  const search = h('input', {
    class: 'grow', type: 'search', value: params.get('q'), placeholder: 'Site, rule or error', 'aria-label': 'Search past incidents',
    oninput: () => {
      filter = search.value.trim().toLowerCase();
      params.set({ q: search.value.trim() });
      list();
    },
  });
  const body = h('tbody', {});
  const nothing = h('p', { class: 'empty' });
  const more = h('button', { type: 'button', onclick: () => {
    most += ROWS;
    list();
  } }, 'More');
  const table = h(
    'div',
    { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Incidents of 30 days' },
    h('table', { class: 'table stacked' }, h('thead', {}, h('tr', {}, ...['Began', 'Lasted', 'What', 'Cause'].map((text) => h('th', { scope: 'col' }, text)))), body),
    h('p', { class: 'empty' }, more),
    nothing,
  );
  const picture = new Picture(table, { retry: load, words: 'Loading the incidents…' });
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Incidents'), h('p', { class: 'muted' }, state.has('incidents') ? 'What the rules of the alerts opened, and outages that no rule reports.' : 'Outages as the results of the sites show them; with the part alerts, rules can notify people.')), state.has('incidents') ? h('div', { class: 'actions' }, h('a', { class: 'button', href: '#/incidents/maintenance' }, 'Maintenance and receivers')) : ''),
    ...(open ? [open.element] : []),
    h('div', { class: 'apart' }, timeline.element),
    h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'The last 30 days')), h('div', { class: 'toolbar inside' }, search), picture.element, table),
  );

  async function load() {
    clearTimeout(soon);
    soon = 0;
    try {
      const found = await get(`/timeline?span=${PAST_S}`);
      if (gone) return;
      events = found.events.filter((event) => event.lane === 'incidents').reverse();
      if (found.unread.includes('incidents')) picture.away('The incidents cannot be read now.');
      else if (events.length === 0) picture.empty('There was no incident in the last 30 days.');
      else picture.truth();
      if (found.cut.includes('incidents')) setText(nothing, 'There were more; only the newest are here.');
      list();
      settle();
    } catch (error) {
      if (!gone) picture.failed(error, 'The incidents');
    }
  }

  function list() {
    const wanted = events.filter((event) => filter === '' || `${event.title} ${event.detail} ${event.names.join(' ')} ${event.said}`.toLowerCase().includes(filter));
    nothing.hidden = wanted.length > 0 && nothing.textContent === '';
    if (wanted.length === 0) setText(nothing, 'No incident matches.');
    more.parentElement.hidden = wanted.length <= most;
    sync(
      body,
      wanted.slice(0, most),
      (event) => `${event.id} ${event.end} ${event.said} ${event.acknowledged_by}`,
      (event) => {
        const place = placeOf(event);
        return h(
          'tr',
          {},
          h('td', { class: 'nowrap' }, `${date(event.start)} ${clock(event.start).slice(0, 5)}`),
          h('td', { class: 'nowrap' }, event.end === null ? stateMark('down', `open, ${duration(now() - event.start)}`) : `${event.rough ? 'about ' : ''}${duration(event.end - event.start)}`),
          h('td', {}, place ? h('a', { href: place }, h('bdi', {}, event.title)) : h('bdi', {}, event.title), event.count > 1 ? h('p', { class: 'muted' }, h('bdi', {}, `${event.names.join(', ')}${event.count > event.names.length ? ' …' : ''}`)) : null, event.said ? h('p', { class: 'follow' }, h('bdi', {}, unbroken(event.said))) : null),
          h('td', {}, h('bdi', {}, event.detail), event.acknowledged_by ? h('p', { class: 'muted' }, `acknowledged by ${event.acknowledged_by}`) : null),
        );
      },
    );
  }

  load();
  const timer = setInterval(load, REFRESH_MS);
  return {
    update(kinds) {
      open?.update(kinds);
      timeline.update(kinds);
      // With many sites something changes each second.
      if (kinds.has('incidents') || kinds.has('changes')) soon ||= setTimeout(load, SOON_MS);
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      clearTimeout(soon);
      timeline.destroy();
      picture.destroy();
    },
  };
}

function one(root, context, id) {
  const { state, get, request, admin } = context;
  let gone = false;
  let timeline = null;
  const title = h('h1', { dir: 'auto' });
  const reason = h('p', { class: 'muted' });
  const button = h('button', { type: 'button', hidden: true, onclick: acknowledge }, 'Acknowledge');
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const facts = h('dl', { class: 'facts' });
  const sent = h('tbody', {});
  const around = h('div', { class: 'apart' });
  const sentPanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Messages')), h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Messages' }, h('table', { class: 'table' }, h('thead', {}, h('tr', {}, ...['Receiver', 'Event', 'Accepted', 'Attempts', 'Error'].map((text) => h('th', { scope: 'col' }, text)))), sent)));
  const content = h('div', {}, h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/incidents' }, 'Incidents')), title, reason), h('div', { class: 'actions' }, button)), problem, facts, around, sentPanel);
  const picture = new Picture(content, { retry: load, words: 'Loading the incident…' });
  picture.of(state.has('incidents') ? null : conditionOf(state, 'past'));
  root.append(picture.element, content);

  async function load() {
    try {
      const found = await get(`/incident/${encodeURIComponent(id)}`);
      if (!gone) draw(found);
    } catch (error) {
      if (gone) return;
      if (error.status === 404) picture.empty(`There is no incident ${id}.`);
      else picture.failed(error, 'The incident');
    }
  }

  function draw(found) {
    picture.truth();
    const place = subjectPlace(found);
    title.replaceChildren(place ? h('a', { href: place }, h('bdi', {}, found.title)) : h('bdi', {}, found.title));
    setText(reason, found.reason);
    button.hidden = !admin() || found.resolved_at !== null || found.acknowledged_at !== null;
    const rows = [
      ['State', found.resolved_at !== null ? stateMark('up', 'resolved') : stateMark('down', 'open')],
      ['Began', moment(found.opened_at)],
      ['Lasted', lengthOf(found)],
      ['Ended', found.resolved_at === null ? '–' : moment(found.resolved_at)],
      ['Rule', found.rule],
      ['Acknowledged', found.acknowledged_at === null ? 'by nobody' : h('span', {}, `by ${found.acknowledged_by}`, h('small', {}, moment(found.acknowledged_at)))],
      ...(found.suppressed_by ? [['Not sent', found.suppressed_by]] : []),
    ];
    facts.replaceChildren(...rows.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
    sentPanel.hidden = found.notified.length === 0;
    sent.replaceChildren(
      ...found.notified.map((each) => h('tr', {}, h('td', {}, each.receiver), h('td', {}, each.event), h('td', {}, each.at === null ? h('span', { class: 'state late' }, icon('late'), 'waiting') : moment(each.at)), h('td', { class: 'n' }, String(each.attempts)), h('td', {}, each.error ?? ''))),
    );
    if (timeline === null && TimelinePanel.isOf(state)) {
      const end = Math.min(now(), (found.resolved_at ?? now()) + AROUND_S);
      timeline = new TimelinePanel(context, found.job === null ? {} : { job: found.job }, { title: 'What happened around it', range: [found.opened_at - AROUND_S, end] });
      around.append(timeline.element);
    }
  }

  async function acknowledge() {
    button.disabled = true;
    problem.hidden = true;
    try {
      draw({ ...(await request('POST', `/incident/${encodeURIComponent(id)}/acknowledge`)) });
    } catch (error) {
      setText(problem, `Not acknowledged: ${error.message}.`);
      problem.hidden = false;
    }
    button.disabled = false;
  }

  if (state.has('incidents')) load();
  return {
    update(kinds) {
      timeline?.update(kinds);
      if (kinds.has('incidents') && state.has('incidents')) load();
    },
    destroy() {
      gone = true;
      timeline?.destroy();
      picture.destroy();
    },
  };
}
