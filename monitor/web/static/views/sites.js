// All sites: state, uptime bars, response time. Only the rows in sight are drawn, and only their
// bars are asked for.

import { bars, share } from '../bars.js';
import { conditionOf, problemOf } from '../conditions.js';
import { ago, h, segments, setText, stateMark } from '../dom.js';
import { milliseconds, percent } from '../format.js';
import { Order } from '../order.js';
import { Picture } from '../picture.js';
import { addSite } from '../site-actions.js';
import { shownState, tally, title } from '../state.js';
import { grouped, tagsOf } from '../tags.js';
import { virtualList } from '../virtual.js';

const REFRESH_MS = 30000;
const RETRY_MS = 5000;
const LIST_MS = 900;
const ASKED_AT_ONCE = 60;
const SPANS = [['minute', '90 min'], ['hour', '90 h'], ['day', '90 d']];
const STATES = [['', 'All'], ['down', 'Down'], ['up', 'Up'], ['unknown', 'Unknown'], ['stopped', 'Stopped']];
const IN_STATE = { down: ['down', 'late'], up: ['up', 'degraded'], unknown: ['unknown'], stopped: ['stopped', 'inactive'] };

export function sites(root, { state, get, params, settle, admin }) {
  let filter = params.get('q').toLowerCase();
  let wanted = params.get('state');
  let span = SPANS.some(([each]) => each === params.get('span')) ? params.get('span') : 'minute';
  let group = params.get('group') === 'tag';
  let tag = params.get('tag');
  let closed = new Set(params.all('closed'));
  let seen = []; // ids in sight
  const order = new Order();
  const uptimes = new Map(); // job id -> {at, uptime, drawn}
  let asking = false;
  let failed = false; // whether the last bars could not be loaded
  let gone = false;

  const heading = h('p', { class: 'muted' });
  const search = h('input', {
    class: 'grow',
    type: 'search',
    placeholder: 'Name, address or error',
    'aria-label': 'Search sites',
    value: params.get('q'),
    oninput: () => {
      filter = search.value.trim().toLowerCase();
      params.set({ q: search.value.trim() });
      list();
    },
  });
  const tags = h('select', {
    'aria-label': 'Tags',
    hidden: true,
    onchange: () => {
      group = tags.value === 'group';
      tag = tags.value.startsWith('tag:') ? tags.value.slice(4) : '';
      params.set({ group: group && 'tag', tag });
      list();
    },
  });
  const rows = h('ul', { class: 'sites panel', 'aria-label': 'Sites' });
  const head = h(
    'div',
    { class: 'head-row', 'aria-hidden': 'true' },
    ...['State', 'Site', 'Uptime', 'Up', 'Response', 'Checked'].map((text) => h('span', {}, text)),
  );
  const picture = new Picture([rows, head]);
  const pastPicture = new Picture([], { retry: () => ask(true) });
  pastPicture.truth();
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Sites'), heading), h('div', { class: 'actions' }, h('a', { class: 'button', href: '#/sites/certificates' }, 'Certificates'), addSite(state, admin))),
    h(
      'div',
      { class: 'toolbar' },
      search,
      tags,
      segments('State', STATES, wanted, (value) => {
        wanted = value;
        params.set({ state: value });
        list();
      }),
      state.has('history')
        ? segments('Time of the bars', SPANS, span, (value) => {
            span = value;
            params.set({ span: value === 'minute' ? '' : value });
            uptimes.clear();
            rowList.refresh();
            ask();
          })
        : null,
    ),
    h('div', { class: 'above' }, pastPicture.element),
    head,
    h('div', { class: 'below' }, picture.element),
    rows,
  );
  const rowList = virtualList(rows, {
    key: (item) => item.key ?? item.id,
    create,
    update: fill,
    estimate: 62,
    range: (items) => {
      seen = [...new Set(items.filter((item) => !item.sites).map((item) => (item.job ?? item).id))];
      ask();
    },
  });

  async function ask(now = false) {
    if (!state.has('history') || asking || gone) return;
    const old = performance.now() - (now ? 0 : REFRESH_MS);
    const missing = seen.filter((id) => (uptimes.get(id)?.at ?? -Infinity) < old).slice(0, ASKED_AT_ONCE);
    if (missing.length === 0) return;
    asking = true;
    const asked = span;
    try {
      const query = missing.map((id) => `job=${id}`).join('&');
      const found = await get(`/uptime?granularity=${asked}&${query}`);
      if (gone) return;
      for (const uptime of found.items) {
        if (asked === span) uptimes.set(uptime.job_id, { at: performance.now(), uptime });
      }
      failed = false;
      sayPast();
      rowList.refresh();
    } catch (error) {
      if (gone) return;
      failed = true;
      pastPicture.failed(error, 'The uptime bars');
      for (const id of missing) uptimes.set(id, { ...uptimes.get(id), at: performance.now() - REFRESH_MS + RETRY_MS });
    }
    asking = false;
    ask();
  }

  function sayPast() {
    if (failed) return;
    const problem = state.has('history') ? problemOf(state, 'history') : null;
    if (problem === null) pastPicture.truth();
    else pastPicture.away(`The uptime bars may lack the newest checks. ${problem.words}`);
  }

  function matches(job, how) {
    if (IN_STATE[wanted] && !IN_STATE[wanted].includes(how)) return false;
    if (tag !== '' && !job.tags.includes(tag)) return false;
    return filter === '' || `${job.name} ${job.url} ${job.last?.error ?? ''} ${job.tags.join(' ')}`.toLowerCase().includes(filter);
  }

  function list() {
    const condition = conditionOf(state, 'jobs');
    const found = order.of(state.jobs, matches);
    if (condition?.kind === 'loading' && state.jobs.size > 0) picture.truth();
    else if (condition !== null) picture.of(condition);
    else if (found.length === 0) picture.empty('No site matches.');
    else picture.truth();
    rowList.set(group ? grouped(found, closed) : found);
    if (condition !== null) {
      setText(heading, condition.kind === 'loading' ? condition.words : '');
      return;
    }
    const counts = tally(state.jobs.values());
    const unknown = counts.unknown + counts.blocked;
    const all = `${state.jobs.size} in all: ${counts.up} up, ${counts.down} down${counts.late ? `, ${counts.late} late` : ''}${counts.degraded ? `, ${counts.degraded} degraded` : ''}${unknown ? `, ${unknown} unknown` : ''}${counts.stopped ? `, ${counts.stopped} stopped` : ''}`;
    setText(heading, found.length === state.jobs.size ? all : `${found.length} of ${all}`);
  }

  /** The tags that there are; one that is asked for is offered even if no site has it. */
  function offerTags() {
    const all = tagsOf(state.jobs.values());
    if (tag !== '' && !all.includes(tag)) all.push(tag);
    tags.hidden = all.length === 0 && !group;
    // A list that is open would close.
    const offered = JSON.stringify(all);
    if (tags.dataset.offered !== offered) tags.replaceChildren(h('option', { value: '' }, 'All tags'), h('option', { value: 'group' }, 'Grouped by tag'), ...all.map((each) => h('option', { value: `tag:${each}` }, each)));
    tags.dataset.offered = offered;
    tags.value = group ? 'group' : tag === '' ? '' : `tag:${tag}`;
  }

  function createGroup({ tag: name }) {
    const toggle = () => {
      if (!closed.delete(name)) closed.add(name);
      params.set({ closed: [...closed] });
      list();
    };
    return h('li', { class: 'group' }, h('button', { type: 'button', class: 'quiet', onclick: toggle }, h('b', { dir: 'auto' }), h('span', { class: 'muted' }), h('span', { class: 'tone-down' })));
  }

  function fillGroup(row, { tag: name, sites, down }) {
    const [button] = row.children;
    button.setAttribute('aria-expanded', String(!closed.has(name)));
    setText(button.children[0], name === '' ? 'Without a tag' : name);
    setText(button.children[1], `${sites} ${sites === 1 ? 'site' : 'sites'}`);
    setText(button.children[2], down ? `${down} down` : '');
  }

  function create(item) {
    if (item.sites) return createGroup(item);
    const job = item.job ?? item;
    return h(
      'li',
      { 'data-id': job.id },
      h(
        'a',
        { href: `#/sites/${job.id}` },
        h('span', { class: 'state' }),
        h('span', { class: 'name' }, h('b', { dir: 'auto' }), h('span', { dir: 'auto' })),
        h('span', { class: 'strip' }),
        h('span', { class: 'number share' }),
        h('span', { class: 'number speed' }),
        h('span', { class: 'when' }, ago(null)),
      ),
    );
  }

  function fill(row, item) {
    if (item.sites) {
      fillGroup(row, item);
      return;
    }
    const job = item.job ?? item;
    const link = row.firstChild;
    const uptime = uptimes.get(job.id)?.uptime;
    if (row.uptime !== uptime) {
      row.uptime = uptime;
      link.children[2].replaceChildren(...(uptime ? [bars(uptime)] : []));
      setText(link.children[3], uptime ? percent(share(uptime)) : '');
    }
    const how = shownState(job);
    const signature = `${how} ${job.state} ${job.name} ${job.url} ${job.last?.checked_at} ${job.last?.error}`;
    if (row.signature === signature) return;
    row.signature = signature;
    if (row.dataset.state !== how) {
      row.dataset.state = how;
      link.children[0].replaceWith(stateMark(how));
    }
    const [name, below] = link.children[1].children;
    setText(name, title(job));
    name.title = title(job);
    const why = how === 'down' ? (job.last?.error ?? `status ${job.last?.status}`) : null;
    const words = why ?? (job.state.startsWith('unknown:') ? job.state.slice(9) : job.url);
    setText(below, words);
    below.title = words;
    below.className = why === null ? '' : 'why';
    setText(link.children[4], how === 'inactive' ? '' : milliseconds(job.last?.response_time));
    link.querySelector('time').dataset.ago = job.last?.checked_at ?? '';
  }

  offerTags();
  list();
  const timer = setInterval(ask, RETRY_MS);
  let listedAt = performance.now();
  let later = 0;

  let retag = 0;
  function listSoon(wait) {
    if (later === 0) later = setTimeout(() => {
      later = 0;
      listedAt = performance.now();
      list();
      settle();
    }, wait);
  }

  return {
    update(kinds) {
      if (kinds.has('status') && pastPicture.kind !== 'stale') sayPast();
      if (kinds.has('hello')) ask();
      // States order the list; within a second only what is shown of a site may change.
      if (kinds.has('list')) {
        clearTimeout(retag);
        retag = setTimeout(offerTags, 50);
        listSoon(50);
      }
      else if (kinds.has('jobs') && performance.now() - listedAt > LIST_MS) listSoon(0);
      else if (kinds.has('status') && !state.complete) listSoon(0);
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      clearTimeout(later);
      clearTimeout(retag);
      picture.destroy();
      pastPicture.destroy();
      rowList.destroy();
    },
  };
}
