// Certificates of all sites, the next to expire first.

import { byExpiry, certificateText } from '../certificates.js';
import { conditionOf } from '../conditions.js';
import { h, setText, sync } from '../dom.js';
import { date } from '../format.js';
import { Picture } from '../picture.js';
import { title } from '../state.js';

const MOST = 500;

export function certificates(root, { state, settle }) {
  const about = h('p', { class: 'muted' });
  const body = h('tbody', {});
  const table = h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Certificates' }, h('table', { class: 'table' }, h('thead', {}, h('tr', {}, ...['Site', 'Left', 'Expires'].map((text) => h('th', { scope: 'col' }, text)))), body));
  const picture = new Picture(table);
  root.append(
    h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/sites' }, 'Sites')), h('h1', {}, 'Certificates'), about)),
    h('section', { class: 'panel', 'aria-label': 'Certificates by expiry' }, picture.element, table),
  );

  function list() {
    const condition = conditionOf(state, 'jobs');
    const jobs = byExpiry(state.jobs.values());
    picture.of(condition ?? (jobs.length === 0 ? { kind: 'empty', words: 'No check of a site has shown a certificate yet.' } : null));
    const soon = jobs.filter((job) => certificateText(job.last.certificate_expires_at).tone !== 'up').length;
    setText(about, jobs.length === 0 ? '' : `${jobs.length} ${jobs.length === 1 ? 'certificate' : 'certificates'}, ${soon} of them with less than 30 days left${jobs.length > MOST ? `; the first ${MOST} are here` : ''}`);
    sync(
      body,
      jobs.slice(0, MOST),
      (job) => job.id,
      () => h('tr', {}, h('td', {}), h('td', {}), h('td', { class: 'nowrap' })),
      (row, job) => {
        const expires = job.last.certificate_expires_at;
        const { tone, text } = certificateText(expires);
        const signature = `${title(job)} ${text} ${expires}`;
        if (row.dataset.signature === signature) return;
        row.dataset.signature = signature;
        row.children[0].replaceChildren(h('a', { href: `#/sites/${job.id}` }, h('bdi', {}, title(job))));
        row.children[1].replaceChildren(h('b', { class: `tone-${tone}` }, text));
        setText(row.children[2], date(expires));
      },
    );
    settle();
  }

  list();
  return {
    update(kinds) {
      if (kinds.has('jobs') || kinds.has('status')) list();
    },
    destroy: () => picture.destroy(),
  };
}
