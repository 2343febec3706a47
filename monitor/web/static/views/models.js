// Deployments of model services, newest first, by day.

import { h, icon, setText } from '../dom.js';
import { clock, dayName } from '../format.js';

const PAGE = 100;
const REFRESH_MS = 60000;

const TYPES = {
  'dev.cdevents.service.deployed': ['new', 'tone-new', 'deployed'],
  'dev.cdevents.service.upgraded': ['upgraded', 'tone-up', 'upgraded'],
  'dev.cdevents.service.rolledback': ['rolledback', 'tone-warn', 'rolled back'],
  'dev.cdevents.service.removed': ['removed', 'tone-idle', 'removed'],
  'org.recodex.monitor.rollout.failed': ['down', 'tone-down', 'rollout failed'],
  'org.recodex.monitor.pod.ready': ['ready', 'tone-up', 'pod ready'],
};

export function models(root, { state, get }) {
  let events = [];
  let cursor = null;
  let filter = '';
  let pods = false;
  let gone = false;
  let more = false;

  const about = h('p', { class: 'muted' });
  const search = h('input', {
    class: 'grow',
    type: 'search',
    placeholder: 'Model, namespace, version or image',
    'aria-label': 'Search model events',
    oninput: () => {
      filter = search.value.trim().toLowerCase();
      draw();
    },
  });
  const podBox = h('input', {
    type: 'checkbox',
    id: 'pods',
    onchange: () => {
      pods = podBox.checked;
      draw();
    },
  });
  const timeline = h('div', { class: 'timeline panel' });
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const older = h('button', { type: 'button', hidden: true, onclick: () => load(true) }, 'Older events');
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Model deployments'), about)),
    h('div', { class: 'toolbar' }, search, h('label', { for: 'pods' }, podBox, ' pods too')),
    problem,
    timeline,
    h('p', { class: 'toolbar' }, older),
  );

  async function load(next = false) {
    try {
      const found = await get(`/model-update?limit=${PAGE}${next && cursor ? `&cursor=${cursor}` : ''}`);
      if (gone) return;
      if (next) {
        events.push(...found.items);
        more = true;
      } else if (more) {
        const known = new Set(events.map((event) => event.id));
        events.unshift(...found.items.filter((event) => !known.has(event.id)));
      } else {
        events = found.items;
      }
      if (next || !more) cursor = found.cursor;
      older.hidden = cursor === null;
      problem.hidden = true;
      draw();
    } catch (error) {
      problem.textContent = `The model events cannot be shown: ${error.message}.`;
      problem.hidden = false;
    }
  }

  function text(event) {
    const { data } = event;
    return `${data.namespace} ${data.name} ${data.model ?? ''} ${data.version ?? ''} ${event.type} ${data.images.map((image) => image.after ?? '').join(' ')}`.toLowerCase();
  }

  function draw() {
    const wanted = events.filter((event) => (pods || !event.type.endsWith('pod.ready')) && (filter === '' || text(event).includes(filter)));
    const failed = events.filter((event) => event.type.endsWith('rollout.failed')).length;
    setText(about, `${events.length} events${cursor === null ? '' : ', and older ones'}${failed ? `; ${failed} ${failed === 1 ? 'rollout' : 'rollouts'} failed` : ''}`);
    const pieces = [];
    let day = null;
    let list = null;
    for (const event of wanted) {
      const name = dayName(event.time);
      if (name !== day) {
        day = name;
        list = h('ol', { reversed: true });
        pieces.push(h('h2', {}, name), list);
      }
      list.append(line(event));
    }
    timeline.replaceChildren(...(pieces.length ? pieces : [h('p', { class: 'empty' }, events.length ? 'No event matches.' : 'No model has been deployed or changed yet.')]));
  }

  function line(event) {
    const { data } = event;
    const [sign, tone, word] = TYPES[event.type] ?? ['unknown', 'tone-idle', event.type];
    const versions = data.previous_version && data.version && data.previous_version !== data.version
      ? [h('span', { class: 'tag' }, data.previous_version), ' → ', h('span', { class: 'tag' }, data.version)]
      : data.version ? [h('span', { class: 'tag' }, data.version)] : [];
    const details = [
      `${data.namespace} on ${data.cluster}`,
      data.replicas_wanted === null || event.type.endsWith('.removed') ? null : `${data.replicas_ready ?? 0} of ${data.replicas_wanted} ready`,
      data.reason,
      data.message,
      data.catch_up ? 'happened while the daemon was down' : null,
    ].filter(Boolean);
    const images = data.images.filter((image) => image.before !== image.after).map((image) => image.after ?? image.before).filter(Boolean);
    return h(
      'li',
      {},
      h('time', { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time).slice(0, 5)),
      h('span', { class: `sign ${tone}` }, icon(sign, 14)),
      h(
        'div',
        {},
        h('b', {}, data.model ?? data.name), ` ${word} `, ...versions,
        h('p', {}, details.join(' · ')),
        images.length ? h('p', { class: 'mono' }, images.map(shorten).join(', ')) : null,
      ),
    );
  }

  load();
  const timer = setInterval(load, REFRESH_MS);
  return {
    update(kinds) {
      if (kinds.has('models')) load();
    },
    destroy() {
      gone = true;
      clearInterval(timer);
    },
  };
}

/** A digest in the few letters that people compare. */
function shorten(image) {
  return image.replace(/(@sha256:[0-9a-f]{12})[0-9a-f]+/, '$1…');
}
