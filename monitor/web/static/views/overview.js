// At a glance: is everything up, what changed, since when.

import { ago, h, icon, setText, stateMark, sync } from '../dom.js';
import { clock, dayName } from '../format.js';
import { byUrgency, shownState, tally, title } from '../state.js';

const CHANGES_SHOWN = 12;
const TROUBLES_SHOWN = 20;

const TONES = { up: 'up', ok: 'up', down: 'down', degraded: 'warn', starting: 'idle', stopping: 'idle' };

export function overview(root, { state }) {
  const sign = h('div', { class: 'sign' });
  const headline = h('h1', {});
  const detail = h('p', {});
  const figures = h('dl', { class: 'figures' });
  const verdict = h('section', { class: 'verdict', 'aria-label': 'State' }, sign, h('div', {}, headline, detail), figures);
  const troubles = h('ul', { class: 'changes' });
  const troublePanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Needs attention')), troubles);
  const changes = h('ul', { class: 'changes' });
  const noChanges = h('p', { class: 'empty' }, 'Nothing has changed in the last day.');
  const changePanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'What changed')), changes, noChanges);
  const parts = h('ul', { class: 'parts' });
  const partPanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'The daemon'), h('span', { class: 'more muted' }, `version ${state.hello.version}`)), parts);
  root.append(
    verdict,
    h('div', { class: 'columns' }, h('div', { class: 'stack' }, troublePanel, changePanel), partPanel),
  );

  function judge() {
    const counts = tally(state.jobs.values());
    const poor = Object.entries(state.status?.parts ?? {}).filter(([, part]) => part.health !== 'ok');
    const watched = counts.up + counts.down + counts.late + counts.unknown;
    let how = 'up';
    let text = state.has('jobs') && watched ? 'Everything is up' : 'The daemon is well';
    if (counts.down > 0) {
      how = 'down';
      text = counts.down === 1 ? '1 site is down' : `${counts.down} sites are down`;
    } else if (poor.some(([, part]) => part.health === 'degraded')) {
      how = 'degraded';
      text = `${poor.map(([name]) => name).join(', ')} ${poor.length === 1 ? 'is' : 'are'} degraded`;
    } else if (counts.late > 0) {
      how = 'degraded';
      text = counts.late === 1 ? '1 site was not checked in time' : `${counts.late} sites were not checked in time`;
    } else if (state.has('jobs') && watched > 0 && counts.up === 0) {
      how = 'unknown';
      text = 'No results yet';
    }
    verdict.className = `verdict ${how}`;
    if (sign.dataset.how !== how) {
      sign.dataset.how = how;
      sign.replaceChildren(icon(how, 28));
    }
    setText(headline, text);
    const latest = state.changes.at(-1);
    detail.replaceChildren(
      ...(latest
        ? [`Last change: ${latest.name} ${latest.to === 'up' ? 'came up' : latest.to === 'down' ? 'went down' : `is ${latest.to}`} `, ago(latest.time)]
        : ['No change since the daemon started ', ago(state.hello.started_at)]),
    );
    const shown = [];
    if (state.has('jobs')) {
      shown.push(['up', counts.up], ['down', counts.down], ['stopped', counts.stopped]);
      if (counts.late) shown.push(['late', counts.late]);
      if (counts.unknown) shown.push(['no result yet', counts.unknown]);
    }
    if (state.status?.relay) shown.push(['live clients', state.status.relay.clients]);
    sync(
      figures,
      shown,
      ([name]) => name,
      ([name]) => h('div', {}, h('dt', {}, name), h('dd', {})),
      (element, [, number]) => setText(element.lastChild, String(number)),
    );
  }

  function listTroubles() {
    const items = [...state.jobs.values()].filter((job) => ['down', 'late'].includes(shownState(job))).sort(byUrgency);
    troublePanel.hidden = items.length === 0;
    sync(
      troubles,
      items.slice(0, TROUBLES_SHOWN),
      (job) => `${job.id} ${shownState(job)}`,
      (job) => {
        const how = shownState(job);
        return h(
          'li',
          {},
          h('span', { class: how === 'down' ? 'tone-down' : 'tone-warn' }, icon(how)),
          h('span', { class: 'what' }, h('a', { href: `#/sites/${job.id}` }, h('b', {}, title(job))), how === 'down' ? ' is down' : ' was not checked in time'),
          ago(how === 'down' ? job.since : job.last.checked_at, how === 'down' ? 'for' : ''),
          h('span', { class: 'why' }),
        );
      },
      (element, job) => {
        element.querySelector('time').dataset.empty = 'for more than a day';
        element.querySelector('time').dataset.ago = (shownState(job) === 'down' ? job.since : job.last.checked_at) ?? '';
        setText(element.querySelector('.why'), job.last.error ?? (job.last.status ? `status ${job.last.status}` : ''));
      },
    );
  }

  function listChanges() {
    const items = state.changes.slice(-CHANGES_SHOWN).reverse();
    noChanges.hidden = items.length > 0;
    sync(
      changes,
      items,
      (change) => `${change.kind} ${change.name} ${change.time}`,
      (change) => {
        const tone = TONES[change.to] ?? 'idle';
        const name = h('b', {}, change.name);
        const verb = { up: ' came up', down: ' went down' }[change.to] ?? ` is ${change.to}`;
        const day = dayName(change.time);
        return h(
          'li',
          {},
          h('span', { class: `tone-${tone}` }, icon(change.to)),
          h('span', { class: 'what' }, change.job_id ? h('a', { href: `#/sites/${change.job_id}` }, name) : name, verb),
          h('time', { datetime: new Date(change.time * 1000).toISOString() }, `${day === 'Today' ? '' : `${day} `}${clock(change.time)}`),
          change.detail && change.to !== 'up' ? h('span', { class: 'why' }, change.detail) : null,
        );
      },
    );
  }

  function listParts() {
    sync(
      parts,
      Object.entries(state.status?.parts ?? {}),
      ([name]) => name,
      ([name]) => h('li', {}, h('b', {}, name), h('span', {}), h('p', {})),
      (element, [, part]) => {
        if (element.dataset.health !== part.health) {
          element.dataset.health = part.health;
          element.children[1].replaceChildren(stateMark(part.health));
        }
        element.children[1].firstChild.title = `since ${dayName(part.since)} ${clock(part.since)}`;
        setText(element.children[2], part.summary);
      },
    );
  }

  function update(kinds) {
    if (kinds === null || kinds.has('jobs') || kinds.has('status') || kinds.has('changes')) judge();
    if (kinds === null || kinds.has('jobs')) listTroubles();
    if (kinds === null || kinds.has('changes')) listChanges();
    if (kinds === null || kinds.has('status')) listParts();
  }

  update(null);
  return { update };
}
