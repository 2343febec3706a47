// All sites: state, uptime bars, response time. A thousand of them stay quick: what is not in
// sight is not drawn, and its bars are not asked for.

import { bars, share } from '../bars.js';
import { ago, h, segments, setText, stateMark, sync } from '../dom.js';
import { milliseconds, percent } from '../format.js';
import { byUrgency, shownState, tally, title } from '../state.js';

const REFRESH_MS = 30000;
const ASKED_AT_ONCE = 60;
const SPANS = [['minute', '90 min'], ['hour', '90 h'], ['day', '90 d']];

let chosenSpan = 'minute';

export function sites(root, { state, get }) {
  let filter = '';
  let wanted = 'all';
  let order = [];
  const uptimes = new Map(); // job id -> {at, uptime}
  const visible = new Set();
  let asking = false;
  let gone = false;

  const heading = h('p', { class: 'muted' });
  const search = h('input', {
    class: 'grow',
    type: 'search',
    placeholder: 'Name, address or error',
    'aria-label': 'Search sites',
    oninput: () => {
      filter = search.value.trim().toLowerCase();
      list();
    },
  });
  const rows = h('ul', { class: 'sites panel', 'aria-label': 'Sites' });
  const nothing = h('p', { class: 'empty panel' }, 'No site matches.');
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Sites'), heading)),
    h(
      'div',
      { class: 'toolbar' },
      search,
      segments('State', [['all', 'All'], ['down', 'Down'], ['up', 'Up'], ['stopped', 'Stopped']], wanted, (value) => {
        wanted = value;
        list();
      }),
      state.has('history')
        ? segments('Time of the bars', SPANS, chosenSpan, (value) => {
            chosenSpan = value;
            uptimes.clear();
            for (const row of rows.children) row.querySelector('.strip').replaceChildren();
            ask();
          })
        : null,
    ),
    h(
      'div',
      { class: 'head-row', 'aria-hidden': 'true' },
      ...['State', 'Site', 'Uptime', 'Up', 'Response', 'Checked'].map((text) => h('span', {}, text)),
    ),
    rows,
    nothing,
  );

  const sight = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const id = Number(entry.target.dataset.id);
        if (entry.isIntersecting) visible.add(id);
        else visible.delete(id);
      }
      ask();
    },
    { rootMargin: '300px' },
  );

  async function ask() {
    if (!state.has('history') || asking || gone) return;
    const old = performance.now() - REFRESH_MS;
    const missing = [...visible].filter((id) => (uptimes.get(id)?.at ?? -1e9) < old).slice(0, ASKED_AT_ONCE);
    if (missing.length === 0) return;
    asking = true;
    const span = chosenSpan;
    try {
      const query = missing.map((id) => `job=${id}`).join('&');
      const found = await get(`/uptime?granularity=${span}&${query}`);
      for (const uptime of found.items) {
        if (span !== chosenSpan) break;
        uptimes.set(uptime.job_id, { at: performance.now(), uptime });
        draw(uptime.job_id);
      }
    } catch {
      // The bars stay as they are; the banner says what is wrong with the connection.
      for (const id of missing) uptimes.set(id, { ...uptimes.get(id), at: performance.now() - REFRESH_MS + 5000 });
    }
    asking = false;
    ask();
  }

  function draw(id) {
    const row = rows.known?.get(id);
    const uptime = uptimes.get(id)?.uptime;
    if (row === undefined || uptime === undefined) return;
    row.querySelector('.strip').replaceChildren(bars(uptime));
    setText(row.querySelector('.share'), percent(share(uptime)));
  }

  function matches(job) {
    const how = shownState(job);
    if (wanted === 'down' && how !== 'down' && how !== 'late') return false;
    if (wanted === 'up' && how !== 'up') return false;
    if (wanted === 'stopped' && how !== 'stopped' && how !== 'inactive') return false;
    if (filter === '') return true;
    return `${job.name} ${job.url} ${job.last?.error ?? ''}`.toLowerCase().includes(filter);
  }

  function list() {
    order = [...state.jobs.values()].filter(matches).sort(byUrgency);
    rows.hidden = order.length === 0;
    nothing.hidden = order.length > 0;
    nothing.textContent = state.jobs.size === 0 ? 'There are no sites yet. They stand under probes in the config.' : 'No site matches.';
    sync(rows, order, (job) => job.id, create, fill);
    const counts = tally(state.jobs.values());
    setText(heading, `${state.jobs.size} in all: ${counts.up} up, ${counts.down} down${counts.late ? `, ${counts.late} late` : ''}${counts.stopped ? `, ${counts.stopped} stopped` : ''}`);
  }

  function create(job) {
    const row = h(
      'li',
      { 'data-id': job.id },
      h(
        'a',
        { href: `#/sites/${job.id}` },
        h('span', { class: 'state' }),
        h('span', { class: 'name' }, h('b', {}), h('span', {})),
        h('span', { class: 'strip' }),
        h('span', { class: 'number share' }),
        h('span', { class: 'number speed' }),
        h('span', { class: 'when' }, ago(null)),
      ),
    );
    sight.observe(row);
    return row;
  }

  function fill(row, job) {
    const how = shownState(job);
    const link = row.firstChild;
    const signature = `${how} ${job.name} ${job.url} ${job.last?.checked_at} ${job.last?.error}`;
    if (row.dataset.signature === signature) return;
    row.dataset.signature = signature;
    if (row.dataset.state !== how) {
      row.dataset.state = how;
      link.children[0].replaceWith(stateMark(how));
    }
    const [name, below] = link.children[1].children;
    setText(name, title(job));
    const why = how === 'down' ? (job.last?.error ?? `status ${job.last?.status}`) : null;
    setText(below, why ?? job.url);
    below.className = why === null ? '' : 'why';
    setText(link.children[4], how === 'inactive' ? '' : milliseconds(job.last?.response_time));
    link.querySelector('time').dataset.ago = job.last?.checked_at ?? '';
    if (link.children[2].childElementCount === 0) draw(job.id);
  }

  list();
  const timer = setInterval(ask, 5000);
  let listedAt = performance.now();

  return {
    update(kinds) {
      if (!kinds.has('jobs')) return;
      // States order the list; within a second only what is shown of a site may change.
      if (kinds.has('list') || performance.now() - listedAt > 900) {
        listedAt = performance.now();
        list();
      }
    },
    destroy() {
      gone = true;
      clearInterval(timer);
      sight.disconnect();
    },
  };
}
