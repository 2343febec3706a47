// The topics of the bus: what is in each partition, who reads it and how far behind, and the messages
// that could not be counted.

import { h, setText, sync } from '../dom.js';
import { bytes, clock, count, date } from '../format.js';
import { Picture } from '../picture.js';
import { link } from '../route.js';

const REFRESH_MS = 5000;

export function topics(root, { get, request, settle }) {
  const topicBody = h('tbody', {});
  const topicBox = table('Topics', ['Topic', 'Partition', 'First offset', 'Next offset', 'Messages'], topicBody);
  const consumerBody = h('tbody', {});
  const consumerBox = table('Consumers', ['Consumer', 'Topic', 'Left to read'], consumerBody);
  const rejectedBody = h('ul', { class: 'messages', 'aria-label': 'Rejected messages' });
  const note = h('p', { class: 'muted', role: 'status' });
  const replayAll = h('button', { type: 'button', hidden: true, onclick: () => replay('', replayAll) }, 'Try all again');
  const topicPicture = new Picture(topicBox, { retry: load });
  const consumerPicture = new Picture(consumerBox, { retry: loadConsumers });
  const rejectedPicture = new Picture(rejectedBody, { retry: loadRejected });
  let gone = false;
  let timer = 0;
  let consumerTimer = 0;

  root.append(
    h('div', { class: 'title' }, h('div', {}, h('h1', {}, 'Topics'), h('p', { class: 'muted' }, 'What is published on the bus'))),
    h(
      'div',
      { class: 'stack' },
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Topics')), topicPicture.element, topicBox),
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Consumers')), consumerPicture.element, consumerBox),
      h('section', { class: 'panel' }, h('header', {}, h('h2', {}, 'Rejected messages'), h('span', { class: 'more' }, note, replayAll)), rejectedPicture.element, rejectedBody),
    ),
  );

  async function load() {
    clearTimeout(timer);
    try {
      const { items } = await get('/topic');
      if (gone) return;
      if (items.length === 0) topicPicture.empty('Nothing has been published yet.');
      else topicPicture.truth();
      const rows = items.flatMap((topic) => topic.partitions.map((each) => ({ ...each, topic: topic.name })));
      sync(topicBody, rows, (row) => `${row.topic} ${row.partition}`, topicRow, (element, row) => {
        setText(element.children[2], String(row.first_offset));
        setText(element.children[3], String(row.next_offset));
        setText(element.children[4], count(row.next_offset - row.first_offset));
      });
    } catch (error) {
      if (!gone) topicPicture.failed(error, 'The topics');
    }
    settle();
    if (!gone) timer = setTimeout(load, REFRESH_MS);
  }

  async function loadConsumers() {
    clearTimeout(consumerTimer);
    try {
      const { items } = await get('/consumer');
      if (gone) return;
      if (items.length === 0) consumerPicture.empty('Nobody has read a topic yet.');
      else consumerPicture.truth();
      sync(consumerBody, items, (each) => `${each.topic} ${each.group}`, consumerRow, fillConsumer);
    } catch (error) {
      if (!gone) consumerPicture.failed(error, 'The consumers');
    }
    if (!gone) consumerTimer = setTimeout(loadConsumers, REFRESH_MS);
  }

  async function loadRejected() {
    try {
      const { items, cursor } = await get('/rejected?limit=100');
      if (gone) return;
      replayAll.hidden = items.length === 0;
      if (items.length === 0) rejectedPicture.empty('None: every message was counted.');
      else rejectedPicture.truth();
      if (items.length) setText(note, cursor === null ? `${items.length} rejected` : `the last ${items.length}`);
      rejectedBody.replaceChildren(...items.map(rejectedRow));
    } catch (error) {
      if (gone) return;
      if (error.status === 404) rejectedPicture.empty('This daemon counts no results: they are rejected where the aggregation runs.');
      else rejectedPicture.failed(error, 'The rejected messages');
    }
  }

  async function replay(query, button) {
    button.disabled = true;
    try {
      const total = {};
      let cursor = null;
      do {
        const rest = cursor === null ? '' : `${query ? '&' : '?'}cursor=${cursor}`;
        const { cursor: more, ...done } = await request('POST', `/rejected/replay${query}${rest}`);
        for (const [what, number] of Object.entries(done)) total[what] = (total[what] ?? 0) + number;
        cursor = more;
      } while (cursor !== null && !gone);
      await loadRejected();
      setText(note, Object.entries(total).map(([what, number]) => `${number} ${what.replaceAll('_', ' ')}`).join(', '));
    } catch (error) {
      setText(note, `That did not work: ${error.message}.`);
    }
    button.disabled = false;
  }

  function rejectedRow(each) {
    const again = h('button', { type: 'button', onclick: () => replay(`?${new URLSearchParams({ topic: each.topic, partition: each.partition, offset: each.offset })}`, again) }, 'Try again');
    return h(
      'li',
      {},
      h('details', {}, h('summary', {}, h('b', {}, each.reason), ` ${each.topic} ${each.partition}:${each.offset} `, h('span', { class: 'muted' }, `${date(each.rejected_at)} ${clock(each.rejected_at)}, ${bytes(each.size_bytes)}`)), h('pre', { tabindex: 0 }, pretty(each.payload)), again),
    );
  }

  load();
  loadConsumers();
  loadRejected();
  return {
    destroy() {
      gone = true;
      clearTimeout(timer);
      clearTimeout(consumerTimer);
      topicPicture.destroy();
      consumerPicture.destroy();
      rejectedPicture.destroy();
    },
  };
}

const topicRow = (row) =>
  h('tr', {}, h('td', {}, h('a', { href: link(`topics/${encodeURIComponent(row.topic)}`, { partition: row.partition || '' }) }, h('bdi', {}, row.topic))), h('td', { class: 'n' }, String(row.partition)), h('td', { class: 'n wide-only' }), h('td', { class: 'n wide-only' }), h('td', { class: 'n' }));

const consumerRow = (each) => h('tr', {}, h('td', {}, h('bdi', {}, each.group), h('p', {})), h('td', { class: 'topic-name' }, h('a', { href: link(`topics/${encodeURIComponent(each.topic)}`) }, h('bdi', {}, each.topic))), h('td', { class: 'n' }, h('b', {}), h('p', { class: 'muted' })));

/** Nobody reads what is left: that is what one looks for here. */
function fillConsumer(row, { active, lag, partitions }) {
  const [group, , left] = row.children;
  const idle = active === false;
  group.children[1].className = idle && lag > 0 ? 'tone-down' : 'muted';
  setText(group.children[1], idle ? 'nobody reads now' : '');
  setText(left.children[0], lag === 0 ? 'nothing' : count(lag));
  setText(left.children[1], partitions.length > 1 && lag > 0 ? partitions.map((each) => `${each.partition}: ${count(each.lag)}`).join(', ') : '');
}

function table(label, titles, body) {
  return h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': label }, h('table', { class: 'table' }, h('thead', {}, h('tr', {}, titles.map((text, at) => h('th', { scope: 'col', class: `${at && text !== 'Topic' ? 'n' : ''} ${text.endsWith('offset') ? 'wide-only' : ''}` }, text)))), body));
}

/** JSON made readable; other text as it is. Control characters are shown as pictures. */
export function pretty(value) {
  let text = value;
  if (typeof value === 'string') {
    try {
      text = JSON.stringify(JSON.parse(value), null, 2);
    } catch {
      text = value;
    }
  } else text = JSON.stringify(value, null, 2);
  return text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (letter) => String.fromCharCode(0x2400 + letter.charCodeAt(0))).replace(/[\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}
