// Model services: what runs now, searched over all by the daemon, and what happened, by service.

import { ago, h, icon, setText, stateMark, sync } from '../dom.js';
import { clock, dayName, duration, unbroken } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';
import { TimelinePanel } from '../timeline.js';

const PAGE = 100;
const REFRESH_MS = 60000;
const SOON_MS = 1000;
const TYPING_MS = 250;

const TYPES = {
  'dev.cdevents.service.deployed': ['new', 'tone-new', 'deployed'],
  'dev.cdevents.service.upgraded': ['upgraded', 'tone-up', 'upgraded'],
  'dev.cdevents.service.rolledback': ['rolledback', 'tone-warn', 'rolled back'],
  'dev.cdevents.service.removed': ['removed', 'tone-idle', 'removed'],
  'org.recodex.monitor.rollout.failed': ['down', 'tone-down', 'rollout failed'],
  'org.recodex.monitor.pod.ready': ['ready', 'tone-up', 'pod ready'],
};
const OUTCOMES = { deployed: ['up', 'deployed'], upgraded: ['up', 'upgraded'], rolledback: ['degraded', 'rolled back'], failed: ['down', 'failed'] };

export function models(root, context, [namespace, name]) {
  const { state, get, params, settle } = context;
  const key = namespace && name ? `${namespace}/${name}` : null;
  const pods = h('input', { type: 'checkbox', id: 'pods', checked: params.get('pods') === '1', onchange: () => { params.set({ pods: pods.checked ? 1 : '' }); past.draw(); } });
  let wait = 0;
  const search = h('input', {
    class: 'grow', type: 'search', value: params.get('q'), placeholder: 'Model, version, image, person', 'aria-label': 'Search models and their events',
    oninput: () => {
      clearTimeout(wait);
      wait = setTimeout(() => {
        params.set({ q: search.value.trim() });
        running.load();
        past.load();
      }, TYPING_MS);
    },
  });
  const wanted = () => (key === null ? search.value.trim() : '');
  const running = new Running(context, key, wanted);
  const past = new Past(context, key, wanted, () => pods.checked);
  const timeline = TimelinePanel.isOf(state) ? new TimelinePanel(context, key === null ? {} : { model: key }, { span: 604800 }) : null;
  const open = state.has('incidents') ? new IncidentList(context, { wanted: (each) => each.watch === 'rollout' && (key === null || each.subject === key), title: 'Open incidents of rollouts' }) : null;
  root.append(
    h('div', { class: 'title' }, h('div', {}, key === null ? null : h('p', { class: 'crumb' }, h('a', { href: '#/models' }, 'Models')), h('h1', { dir: 'auto' }, key === null ? 'Models' : name), h('p', { class: 'muted' }, key === null ? running.about : `in ${namespace}`))),
    ...(key === null ? [h('div', { class: 'toolbar' }, search)] : []),
    ...(open ? [open.element] : []),
    h('div', { class: 'apart' }, running.element),
    ...(timeline ? [h('div', { class: 'apart' }, timeline.element)] : []),
    h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'History'), h('span', { class: 'more' }, h('label', { for: 'pods' }, pods, ' pods too'))), past.picture.element, past.box),
    h('p', { class: 'toolbar' }, past.older),
  );
  let soon = 0;
  const load = () => {
    clearTimeout(soon);
    soon = 0;
    return Promise.all([running.load(), past.load()]).then(settle);
  };
  load();
  const timer = setInterval(load, REFRESH_MS);
  return {
    update(kinds) {
      // A rollout is several events, and many may run at once.
      if (kinds.has('models')) soon ||= setTimeout(load, SOON_MS);
      timeline?.update(kinds);
      open?.update(kinds);
    },
    destroy() {
      clearInterval(timer);
      clearTimeout(wait);
      clearTimeout(soon);
      timeline?.destroy();
      running.destroy();
      past.destroy();
    },
  };
}

/** What runs now: a table of all services, or of one. */
class Running {
  #get;
  #key;
  #wanted;
  #asked = 0;
  #cursor = null;
  #items = [];

  constructor({ get }, key, wanted) {
    this.#get = get;
    this.#key = key;
    this.#wanted = wanted;
    this.about = h('span', {});
    this.body = h('tbody', {});
    this.next = h('button', { type: 'button', hidden: true, onclick: () => this.load(true) }, 'More');
    this.table = h(
      'div',
      {},
      h(
        'div',
        { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'What runs now' },
        h('table', { class: 'table models' }, h('thead', {}, h('tr', {}, ...['Model', 'Version', 'Since', 'Ready', 'Last rollout'].map((text) => h('th', { scope: 'col' }, text)))), this.body),
      ),
      h('p', { class: 'empty' }, this.next),
    );
    this.picture = new Picture(this.table, { retry: () => this.load(), words: 'Loading what runs now…' });
    this.element = h('section', { class: 'panel', 'aria-label': 'What runs now' }, h('header', {}, h('h2', {}, 'What runs now')), this.picture.element, this.table);
  }

  async load(more = false) {
    const mine = (this.#asked += 1);
    const query = new URLSearchParams({ limit: PAGE });
    const text = this.#wanted();
    if (this.#key !== null) query.set('key', this.#key);
    if (text) query.set('contains', text);
    if (more && this.#cursor) query.set('cursor', this.#cursor);
    try {
      const found = await this.#get(`/model?${query}`);
      if (mine !== this.#asked) return;
      this.#cursor = found.cursor;
      this.#items = more ? [...this.#items, ...found.items] : found.items;
      const items = this.#items;
      this.next.parentElement.hidden = this.next.hidden = this.#cursor === null;
      const failed = items.filter((each) => each.last_rollout?.outcome === 'failed').length;
      setText(this.about, `${items.length}${this.#cursor === null ? '' : ' and more'} ${items.length === 1 ? 'service runs' : 'services run'}${failed ? `; the last rollout of ${failed} failed` : ''}`);
      if (items.length === 0) this.picture.empty(this.#key !== null ? 'It does not run now.' : text ? 'No model that runs now matches.' : 'No model runs now.');
      else this.picture.truth();
      this.#draw(items);
    } catch (error) {
      if (mine === this.#asked) this.picture.failed(error, 'What runs now');
    }
  }

  #draw(items) {
    sync(
      this.body,
      items,
      (each) => `${each.cluster} ${each.uid} ${JSON.stringify([each.version, each.since, each.replicas_ready, each.replicas_wanted, each.last_rollout])}`,
      (each) => {
        const { last_rollout: last, replicas_wanted: all, replicas_ready: ready } = each;
        const [tone, word] = OUTCOMES[last?.outcome] ?? ['unknown', last?.outcome];
        return h(
          'tr',
          {},
          h('td', {}, h('a', { href: `#/models/${encodeURIComponent(each.namespace)}/${encodeURIComponent(each.name)}` }, h('b', {}, h('bdi', {}, each.model ?? each.name))), h('p', { class: 'muted' }, h('bdi', {}, `${each.kind} ${each.name} in ${each.namespace} on ${each.cluster}`))),
          h('td', {}, each.version ? h('span', { class: 'tag' }, each.version) : '–', each.traffic_percent !== null && each.traffic_percent < 100 ? h('p', { class: 'muted' }, `${each.traffic_percent} % of the traffic`) : null),
          h('td', { class: 'nowrap' }, each.since === null ? '–' : ago(each.since)),
          h('td', { class: 'nowrap' }, all === null ? '–' : ready === all ? `${ready} of ${all}` : stateMark('degraded', `${ready ?? 0} of ${all}`)),
          h('td', {}, last === null ? h('span', { class: 'muted' }, 'none seen') : [stateMark(tone, word), h('p', { class: 'muted' }, ...[ago(last.at), last.duration === null ? null : unbroken(`, took ${duration(last.duration)}`), last.changed_by ? `, by ${last.changed_by}` : null].filter(Boolean))]),
        );
      },
    );
  }

  destroy() {
    this.#asked += 1;
    this.picture.destroy();
  }
}

/** The model events of all services or of one, newest first, by day. */
class Past {
  #get;
  #key;
  #wanted;
  #pods;
  #asked = 0;
  #cursor = null;
  #events = [];
  #lines = new Map(); // what is drawn, by id
  #more = false;

  constructor({ get }, key, wanted, pods) {
    this.#get = get;
    this.#key = key;
    this.#wanted = wanted;
    this.#pods = pods;
    this.box = h('div', { class: 'timeline' });
    this.older = h('button', { type: 'button', hidden: true, onclick: () => this.load(true) }, 'Older events');
    this.picture = new Picture(this.box, { retry: () => this.load(), words: 'Loading the events…' });
  }

  async load(next = false) {
    const mine = (this.#asked += 1);
    const query = new URLSearchParams({ limit: PAGE });
    if (this.#key !== null) query.set('key', this.#key);
    if (this.#wanted()) query.set('contains', this.#wanted());
    const filter = query.toString();
    if (next && this.#cursor) query.set('cursor', this.#cursor);
    try {
      const found = await this.#get(`/model-update?${query}`);
      if (mine !== this.#asked) return;
      if (next) this.#events.push(...found.items);
      else if (this.#more && filter === this.filter) {
        const known = new Set(this.#events.map((event) => event.id));
        this.#events.unshift(...found.items.filter((event) => !known.has(event.id)));
      } else this.#events = found.items;
      if (next || !this.#more || filter !== this.filter) this.#cursor = found.cursor;
      this.#more = next || (this.#more && filter === this.filter);
      this.filter = filter;
      this.older.hidden = this.#cursor === null;
      this.draw();
    } catch (error) {
      if (mine === this.#asked) this.picture.failed(error, 'The model events');
    }
  }

  draw() {
    const wanted = this.#events.filter((event) => this.#pods() || !event.type.endsWith('pod.ready'));
    if (wanted.length === 0) this.picture.empty(this.#wanted() ? 'No event matches.' : 'No model has been deployed or changed yet.');
    else this.picture.truth();
    const pieces = [];
    const lines = new Map();
    let day = null;
    let list = null;
    for (const event of wanted) {
      const name = dayName(event.time);
      if (name !== day) {
        day = name;
        list = h('ol', { reversed: true });
        pieces.push(h('h3', {}, name), list);
      }
      // An event never changes, and older ones may be very many.
      const drawn = this.#lines.get(event.id) ?? line(event, this.#key);
      lines.set(event.id, drawn);
      list.append(drawn);
    }
    this.#lines = lines;
    this.box.replaceChildren(...pieces);
  }

  destroy() {
    this.#asked += 1;
    this.picture.destroy();
  }
}

function line(event, key) {
  const { data } = event;
  const [sign, tone, word] = TYPES[event.type] ?? ['unknown', 'tone-idle', event.type];
  const versions = data.previous_version && data.version && data.previous_version !== data.version
    ? [h('span', { class: 'tag' }, data.previous_version), ' → ', h('span', { class: 'tag' }, data.version)]
    : data.version ? [h('span', { class: 'tag' }, data.version)] : [];
  const details = [
    key === null ? `${data.namespace} on ${data.cluster}` : `on ${data.cluster}`,
    data.duration === null || data.duration === undefined ? null : `took ${duration(data.duration)}`,
    data.changed_by ? `by ${data.changed_by}` : null,
    data.change_cause,
    data.replicas_wanted === null || event.type.endsWith('.removed') ? null : `${data.replicas_ready ?? 0} of ${data.replicas_wanted} ready`,
    data.traffic_percent === null || data.traffic_percent === undefined ? null : `${data.traffic_percent} % of the traffic`,
    data.reason,
    data.message,
    data.catch_up ? 'happened while the daemon was down' : null,
  ].filter(Boolean);
  const images = data.images.filter((image) => image.before !== image.after).map((image) => image.after ?? image.before).filter(Boolean);
  const what = h('b', {}, h('bdi', {}, data.model ?? data.name));
  // Only what a browser opens is a link; the template of the config gives it.
  const isLink = /^https?:\/\//.test(data.link ?? '');
  return h(
    'li',
    {},
    h('time', { datetime: new Date(event.time * 1000).toISOString() }, clock(event.time).slice(0, 5)),
    h('span', { class: `sign ${tone}` }, icon(sign, 14)),
    h(
      'div',
      {},
      key === null && !data.service ? h('a', { href: `#/models/${encodeURIComponent(data.namespace)}/${encodeURIComponent(data.name)}` }, what) : what, ` ${word} `, ...versions,
      h('p', {}, h('bdi', {}, details.join(' · ')), isLink ? [' · ', h('a', { href: data.link, target: '_blank', rel: 'noopener noreferrer' }, 'console')] : null),
      images.length ? h('p', { class: 'mono' }, images.map(shorten).join(', ')) : null,
    ),
  );
}

/** A digest in the few letters that people compare. */
function shorten(image) {
  return image.replace(/(@sha256:[0-9a-f]{12})[0-9a-f]+/, '$1…');
}
