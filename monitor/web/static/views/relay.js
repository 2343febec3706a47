// The relay: clients, rates, and its channels.

import { conditionOf } from '../conditions.js';
import { h, s, setText, stateMark, sync } from '../dom.js';
import { bytes, count, duration, rate } from '../format.js';
import { IncidentList } from '../incident-list.js';
import { Picture } from '../picture.js';

export function relay(root, context) {
  const { state, live, settle } = context;
  const tiles = h('dl', { class: 'tiles' });
  const tile = (label, drawn = false) => {
    const value = h('span', {}, '–');
    const line = h('span', {});
    tiles.append(h('div', { class: 'tile' }, h('dt', {}, label), h('dd', {}, value, drawn ? line : null)));
    return [value, line];
  };
  const [brokers] = tile('Brokers');
  const [clients] = tile('Clients');
  const [channels] = tile('Channels');
  const [messages, messageLine] = tile('Messages/s in', true);
  const [deliveries, deliveryLine] = tile('Messages/s out', true);
  const [history] = tile('History kept');
  const name = h('input', { class: 'grow', placeholder: 'A channel, such as student_42', 'aria-label': 'Channel to follow', spellcheck: 'false' });
  const rows = h('tbody', {});
  const table = h(
    'div',
    { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Channels' },
    h(
      'table',
      { class: 'table' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Channel'), h('th', { scope: 'col' }, 'State'), h('th', { scope: 'col', class: 'n' }, 'Messages'), h('th', { scope: 'col', class: 'n wide-only' }, 'Clients'), h('th', { scope: 'col', class: 'n wide-only' }, 'History'), h('th', { scope: 'col', class: 'n' }, 'Last message'))),
      rows,
    ),
  );
  const picture = new Picture(table);
  root.append(h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Relay'), h('p', { class: 'muted' }, 'Job progress, from brokers to web pages'))), tiles);
  const form = h(
    'form',
    {
      class: 'toolbar',
      onsubmit: (event) => {
        event.preventDefault();
        if (name.value.trim()) location.hash = `#/relay/${encodeURIComponent(name.value.trim())}`;
      },
    },
    name,
    h('button', { type: 'submit' }, 'Follow'),
  );
  const open = state.has('incidents') ? new IncidentList(context, { wanted: (each) => each.watch === 'feed', title: 'Open incidents of the feed' }) : null;
  root.append(...(open ? [open.element] : []), ...(state.has('channels') ? [form] : []), h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Latest channels')), picture.element, table));

  function numbers() {
    const found = state.status?.relay;
    if (!found) return;
    setText(brokers, count(found.brokers));
    setText(clients, count(found.clients));
    setText(channels, count(found.channels));
    setText(history, bytes(found.history_bytes));
    const last = state.rates.at(-1);
    setText(messages, rate(last?.messages ?? null));
    setText(deliveries, rate(last?.deliveries ?? null));
    if (state.rates.length > 1) {
      messageLine.replaceChildren(spark(state.rates.map((each) => each.messages)));
      deliveryLine.replaceChildren(spark(state.rates.map((each) => each.deliveries)));
    }
  }

  function list() {
    picture.of(conditionOf(state, 'channels'));
    sync(
      rows,
      state.channels ?? [],
      (channel) => channel.name,
      (channel) =>
        h(
          'tr',
          {},
          h('td', {}, h('a', { href: `#/relay/${encodeURIComponent(channel.name)}`, title: channel.name }, h('bdi', { class: 'cut' }, channel.name))),
          h('td', {}),
          h('td', { class: 'n' }),
          h('td', { class: 'n wide-only' }),
          h('td', { class: 'n wide-only' }),
          h('td', { class: 'n muted' }),
        ),
      (row, channel) => {
        const how = channel.ended ? 'ended' : 'open';
        if (row.dataset.how !== how) {
          row.dataset.how = how;
          row.children[1].replaceChildren(channel.ended ? stateMark('inactive', 'ended') : stateMark('up', 'open'));
        }
        setText(row.children[2], count(channel.messages));
        setText(row.children[3], count(channel.subscribers));
        setText(row.children[4], bytes(channel.size_bytes));
        setText(row.children[5], channel.idle === null ? '–' : `${duration(channel.idle)} ago`);
      },
    );
  }

  const watch = () => state.has('channels') && live.send({ watch: ['channels'] });
  watch();
  numbers();
  list();
  return {
    update(kinds) {
      open?.update(kinds);
      if (kinds.has('hello')) watch();
      if (kinds.has('status')) numbers();
      if (kinds.has('channels') || kinds.has('hello')) list();
      settle();
    },
    destroy() {
      live.send({ watch: [] });
      picture.destroy();
    },
  };
}

/** A line of the last values, as high as its box. */
function spark(values) {
  const top = Math.max(1e-9, ...values);
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(27 - (value / top) * 25).toFixed(1)}`);
  return s(
    'svg',
    { viewBox: '0 0 100 28', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    s('polyline', { points: points.join(' '), fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5, 'vector-effect': 'non-scaling-stroke' }),
  );
}
