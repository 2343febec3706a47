// At a glance: is everything up, what needs attention, what changed, since when.

import { conditionOf } from '../conditions.js';
import { ago, h, icon, setText, stateMark, sync } from '../dom.js';
import { Facts } from '../facts.js';
import { clock, dayName, duration } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';
import { tally, title } from '../state.js';
import { TimelinePanel } from '../timeline.js';
import { troubles } from '../troubles.js';
import { reasons, verdict } from '../verdict.js';

const CHANGES_SHOWN = 12;
const GROUPS_SHOWN = 12;

const TONES = { up: 'up', ok: 'up', down: 'down', degraded: 'warn', unknown: 'idle', starting: 'idle', stopping: 'idle' };

export function overview(root, { state, get, request, admin, settle }) {
  const sign = h('div', { class: 'sign' });
  const headline = h('h1', {});
  const also = h('ul', { class: 'also', 'aria-label': 'Also' });
  const detail = h('p', {});
  const figures = h('dl', { class: 'figures' });
  const verdictBox = h('section', { class: 'verdict', 'aria-label': 'State' }, sign, h('div', {}, headline, also, detail), figures);
  const troubleList = h('ul', { class: 'changes' });
  const troubleMore = h('p', { class: 'empty' });
  const troublePanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Needs attention')), troubleList, troubleMore);
  const changes = h('ul', { class: 'changes' });
  const changePicture = new Picture([changes]);
  const changePanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'What changed')), changePicture.element, changes);
  const parts = h('ul', { class: 'parts' });
  const partPicture = new Picture([parts]);
  const partPanel = h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'The daemon'), h('span', { class: 'more muted' }, `version ${state.hello.version}`)), partPicture.element, parts);
  const timeline = TimelinePanel.isOf(state) ? new TimelinePanel({ state, get }) : null;
  const incidents = state.has('incidents') ? new IncidentList({ state, request, admin }, { most: 5 }) : null;
  root.append(
    verdictBox,
    ...(incidents ? [incidents.element] : []),
    ...(timeline ? [h('div', { class: 'apart' }, timeline.element)] : []),
    h('div', { class: 'columns' }, h('div', { class: 'stack' }, troublePanel, changePanel), partPanel),
  );
  let isLost = false;
  const facts = new Facts(state, get, judge);

  function judge() {
    const sites = conditionOf(state, 'jobs');
    const found = reasons({ state, sites, models: facts.models, logs: facts.logs });
    let { how, text } = verdict(state, found);
    const rest = found.filter((each) => each.text !== text);
    if (isLost) {
      text = `Not connected. At ${clock(state.lastHeard / 1000)}: ${text}`;
      how = 'stale';
    }
    verdictBox.className = `verdict ${how}`;
    if (sign.dataset.how !== how) {
      sign.dataset.how = how;
      sign.replaceChildren(icon({ loading: 'loading', stale: 'unplugged' }[how] ?? how, 28));
    }
    setText(headline, text);
    also.hidden = rest.length === 0;
    sync(
      also,
      rest,
      (each) => each.text,
      (each) => h('li', { class: `tone-${TONES[each.how] ?? 'idle'}` }, icon(each.how === 'note' ? 'inactive' : each.how, 14), each.to ? h('a', { href: each.to }, each.text) : each.text),
    );
    const latest = state.changes.at(-1);
    const saying = latest
      ? [`Last change: `, h('bdi', {}, latest.name), ` ${latest.to === 'up' ? 'came up' : latest.to === 'down' ? 'went down' : `is ${latest.to}`} `, ago(latest.time)]
      : ['No change since the daemon started ', ago(state.hello.started_at)];
    detail.replaceChildren(...saying);
    const shown = [];
    if (sites === null) {
      const counts = tally(state.jobs.values());
      shown.push(['up', counts.up], ['down', counts.down], ['stopped', counts.stopped]);
      if (counts.late) shown.push(['late', counts.late]);
      if (counts.degraded) shown.push(['degraded', counts.degraded]);
      if (counts.unknown + counts.blocked) shown.push(['unknown', counts.unknown + counts.blocked]);
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
    const groups = troubles(state.jobs.values());
    troublePanel.hidden = groups.length === 0;
    const left = groups.slice(GROUPS_SHOWN).reduce((sum, group) => sum + group.jobs.length, 0);
    troubleMore.hidden = left === 0;
    troubleMore.replaceChildren(h('a', { href: '#/sites?state=down' }, `and ${left} more with other errors`));
    sync(
      troubleList,
      groups.slice(0, GROUPS_SHOWN),
      (group) => group.key,
      (group) =>
        h(
          'li',
          {},
          h('span', { class: group.how === 'down' ? 'tone-down' : 'tone-warn' }, icon(group.how)),
          h('span', { class: 'what' }),
          ago(null, group.how === 'down' ? 'for' : ''),
          h('bdi', { class: 'why' }),
        ),
      fillTrouble,
    );
  }

  function fillTrouble(element, group) {
    const named = group.jobs.slice(0, group.named);
    const left = group.jobs.length - named.length;
    const signature = `${named.map((job) => `${job.id} ${title(job)}`).join()} ${left}`;
    if (element.dataset.signature !== signature) {
      element.dataset.signature = signature;
      const what = element.children[1];
      what.replaceChildren(
        ...named.flatMap((job, i) => [i === 0 ? '' : i === named.length - 1 && left === 0 ? ' and ' : ', ', h('a', { href: `#/sites/${job.id}`, title: title(job) }, h('b', {}, h('bdi', {}, title(job))))]),
        ...(left > 0 ? [' and ', h('a', { href: group.how === 'down' && group.same ? `#/sites?state=down&q=${encodeURIComponent(group.error)}` : '#/sites?state=down' }, `${left} more`)] : []),
        group.how === 'down' ? (group.jobs.length === 1 ? ' is down' : ' are down') : group.jobs.length === 1 ? ' was not checked in time' : ' were not checked in time',
      );
    }
    const time = element.querySelector('time');
    time.dataset.empty = group.how === 'down' ? 'for more than a day' : '';
    time.dataset.ago = Number.isFinite(group.since) ? group.since : '';
    setText(element.querySelector('.why'), group.how === 'late' ? '' : group.same ? group.error : `${group.error} (and alike)`);
  }

  function listChanges() {
    const items = state.changes.slice(-CHANGES_SHOWN).reverse();
    if (state.status === null) changePicture.loading();
    else if (items.length === 0) changePicture.empty('Nothing has changed in the last day.');
    else changePicture.truth();
    sync(
      changes,
      items,
      (change) => `${change.kind} ${change.name} ${change.time}`,
      (change) => {
        const tone = TONES[change.to] ?? 'idle';
        const name = h('b', {}, h('bdi', {}, change.name));
        const verb = { up: ' came up', down: ' went down' }[change.to] ?? ` is ${change.to}`;
        const day = dayName(change.time);
        return h(
          'li',
          {},
          h('span', { class: `tone-${tone}` }, icon(change.to)),
          h('span', { class: 'what' }, change.job_id ? h('a', { href: `#/sites/${change.job_id}` }, name) : name, verb),
          h('time', { datetime: new Date(change.time * 1000).toISOString() }, `${day === 'Today' ? '' : `${day} `}${clock(change.time)}`),
          h('bdi', { class: 'why' }, change.to === 'up' ? downFor(change) : change.detail),
        );
      },
    );
  }

  /** How long a site that is up again had been down, if that is known. */
  function downFor(change) {
    const before = state.changes.findLast((each) => each.time < change.time && each.kind === change.kind && each.name === change.name && each.job_id === change.job_id);
    return before?.to === 'down' ? `was down for ${duration(change.time - before.time)}` : '';
  }

  function listParts() {
    partPicture.of(state.status === null ? { kind: 'loading', words: 'Loading…' } : null);
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
    if (kinds === null || kinds.has('changes') || kinds.has('status')) listChanges();
    if (kinds === null || kinds.has('status')) listParts();
    if (kinds?.has('models')) facts.soon();
    if (kinds !== null) timeline?.update(kinds);
    incidents?.update(kinds);
    settle();
  }

  update(null);
  return {
    update,
    lost() {
      isLost = true;
      judge();
    },
    found() {
      isLost = false;
      judge();
      facts.refresh();
    },
    destroy() {
      facts.destroy();
      timeline?.destroy();
      changePicture.destroy();
      partPicture.destroy();
    },
  };
}
