// The uptime of a site over 24 hours, 7, 30 and 90 days, by time, and how it is reckoned.

import { h, setText } from './dom.js';
import { duration, percent } from './format.js';

const SPANS = [['24h', '24 hours', 86400], ['7d', '7 days', 604800], ['30d', '30 days', 2592000], ['90d', '90 days', 7776000]];
// A share below these is worth a colour.
const GOOD = 0.999;
const POOR = 0.95;

export class UptimeFigures {
  constructor() {
    this.values = SPANS.map(([, label]) => ({ share: h('dd', {}), note: h('dd', { class: 'note' }), label }));
    this.element = h(
      'div',
      {},
      h('dl', { class: 'spans' }, this.values.map(({ share, note, label }) => h('div', {}, h('dt', {}, label), share, note))),
      h('details', { class: 'how' }, h('summary', {}, 'By time, not by checks'), h('p', { class: 'muted' }, 'Each hour counts for an hour, and is down for the share of its checks that failed, however many checks it has. Time without checks is neither up nor down. Where hours are no longer kept, days count in the same way.')),
    );
  }

  draw({ spans }) {
    SPANS.forEach(([key, , length], i) => {
      const { share, note } = this.values[i];
      const { up, down_s: down, known_s: known } = spans[key];
      setText(share, percent(up));
      share.className = up === null ? 'tone-idle' : up >= GOOD ? 'tone-up' : up >= POOR ? 'tone-warn' : 'tone-down';
      const parts = up === null ? ['not checked'] : [down > 0 ? `down ${duration(down)}` : 'never down'];
      if (up !== null && known < 0.9 * length) parts.push(`of ${duration(known)} checked`);
      setText(note, parts.join(' '));
    });
  }
}
