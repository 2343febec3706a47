// What can be done with a site: edit, copy, delete; or why it cannot be done here.

import { h, setText } from './dom.js';
import { isolated } from './format.js';
import { link } from './route.js';
import { title } from './state.js';

const WHERE = { config: 'The sites are those of the config file: change them there, and reload.', file: 'The sites are those of a jobs file: change them there.' };

/** Why sites cannot be changed here, or null. */
export function whyNot({ hello }, admin) {
  if (hello.sites !== 'database') return WHERE[hello.sites] ?? 'The sites cannot be changed here.';
  return admin() ? null : 'To change sites, log in with the token of an administrator.';
}

/** The links to the forms for new sites; nothing where these could not be saved. */
export function addSite(state, admin) {
  if (whyNot(state, admin) !== null) return null;
  return h('span', { class: 'actions' }, h('a', { class: 'button', href: '#/sites/import' }, 'Import'), h('a', { class: 'button primary', href: '#/sites/new' }, 'Add a site'));
}

/** The actions of one site, and a line that says how they went. */
export function siteActions({ state, request, admin }, jobId) {
  const note = h('p', { class: 'muted', role: 'status' });
  const remove = h('button', { type: 'button', onclick: ask }, 'Delete');
  const sure = h(
    'span',
    { class: 'sure', hidden: true },
    h('span', {}, 'Delete this site? Its results stay. '),
    h('button', { type: 'button', class: 'danger', onclick: removeNow }, 'Delete it'),
    h('button', { type: 'button', onclick: () => ask(false) }, 'Keep it'),
  );
  const box = h('div', { class: 'site-actions' });
  const job = () => state.jobs.get(jobId);
  if (state.has('incidents') && admin()) box.append(h('a', { class: 'button', href: link('incidents/maintenance', { site: jobId }) }, 'Plan maintenance'));
  const why = whyNot(state, admin);
  if (why === null) box.append(h('a', { class: 'button', href: `#/sites/${jobId}/edit` }, 'Edit'), h('a', { class: 'button', href: `#/sites/${jobId}/copy` }, 'Copy'), remove, sure);
  else setText(note, why);
  box.append(note);

  function ask(really = true) {
    sure.hidden = !really;
    remove.hidden = Boolean(really);
    (really ? sure.querySelector('button') : remove).focus();
  }

  async function removeNow() {
    const name = isolated(title(job() ?? { id: jobId, name: '', url: '' }));
    try {
      await request('DELETE', `/job/${jobId}`);
    } catch (error) {
      setText(note, `That did not work: ${error.message}.`);
      return;
    }
    location.hash = '#/sites';
    const { offerUndo } = await import('./undo.js');
    offerUndo(`${name} is deleted.`, async () => {
      state.learn(await request('POST', `/job/${jobId}/undo`));
      location.hash = `#/sites/${jobId}`;
      return `${name} is back.`;
    });
  }
  return box;
}
