// Sites from the file of another program: first what each entry becomes, then they are added.

import { h, setText, stateMark } from '../dom.js';
import { count } from '../format.js';
import { Picture } from '../picture.js';
import { whyNot } from '../site-actions.js';
import { offerUndo } from '../undo.js';

const AT_ONCE = 4;
const ROWS = 500;

export function importing(root, { state, request, admin }) {
  let gone = false;
  let chosen = null;
  let left = []; // entries that are not shown yet
  const file = h('input', { type: 'file', id: 'file', accept: '.json,.yml,.yaml,application/json', onchange: () => look() });
  const problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
  const about = h('p', { role: 'status' });
  const add = h('button', { type: 'button', class: 'primary', hidden: true, onclick: () => take(true) }, 'Add');
  const body = h('tbody', {});
  const more = h('button', { type: 'button', onclick: showMore });
  const table = h('section', { class: 'panel', hidden: true, 'aria-label': 'What becomes of the entries' }, h('div', { class: 'scroller', tabindex: 0, role: 'region', 'aria-label': 'Entries' }, h('table', { class: 'table stacked' }, h('thead', {}, h('tr', {}, ['Entry', 'Becomes', 'Not taken'].map((text) => h('th', { scope: 'col' }, text)))), body)), h('p', { class: 'empty' }, more));
  const box = h(
    'div',
    { class: 'stack' },
    h(
      'section',
      { class: 'panel import-file' },
      h('label', { for: 'file' }, 'A backup of Uptime Kuma, a config of Gatus, or a target list of Prometheus'),
      file,
      problem,
      about,
      h('div', { class: 'actions' }, add, h('a', { class: 'button', href: '#/sites' }, 'Cancel')),
    ),
    table,
  );
  const picture = new Picture(box);
  root.append(h('div', { class: 'title' }, h('div', {}, h('p', { class: 'crumb' }, h('a', { href: '#/sites' }, 'Sites')), h('h1', {}, 'Import sites'), h('p', { class: 'muted' }, 'Nothing is added before you have seen what each entry becomes.'))), picture.element, box);

  const why = whyNot(state, admin);
  if (why === null) picture.truth();
  else picture.refused(why);

  function look() {
    [chosen] = file.files;
    table.hidden = add.hidden = true;
    setText(about, '');
    if (chosen) take(false);
  }

  async function take(save) {
    problem.hidden = true;
    add.disabled = file.disabled = true;
    setText(about, save ? 'Adding…' : 'Reading…');
    try {
      const found = await request('POST', `/job/import${save ? '?save=true' : ''}`, chosen);
      if (!gone) draw(found);
    } catch (error) {
      setText(about, '');
      setText(problem, `${chosen.name} cannot be imported: ${error.message}.`);
      problem.hidden = false;
    }
    add.disabled = file.disabled = false;
  }

  function draw({ jobs, saved, items }) {
    const lost = items.reduce((sum, each) => sum + each.not_taken.length, 0);
    const sites = `${count(jobs)} ${jobs === 1 ? 'site' : 'sites'}`;
    setText(about, `${sites} ${saved ? (jobs === 1 ? 'is' : 'are') : 'will be'} added${lost ? `; ${count(lost)} ${lost === 1 ? 'thing is' : 'things are'} not taken` : ''}.`);
    add.hidden = saved || jobs === 0;
    setText(add, `Add ${sites}`);
    table.hidden = items.length === 0;
    body.replaceChildren();
    left = items;
    showMore();
    if (!saved) return;
    file.value = '';
    const ids = items.map((each) => each.id).filter((id) => id !== null);
    if (ids.length) offerUndo(`${sites} ${jobs === 1 ? 'is' : 'are'} added.`, () => remove(ids));
  }

  function showMore() {
    body.append(...left.slice(0, ROWS).map(row));
    left = left.slice(ROWS);
    setText(more, `More: ${count(left.length)} ${left.length === 1 ? 'entry is' : 'entries are'} left`);
    more.parentElement.hidden = left.length === 0;
  }

  function row(each) {
    const what = each.kind === null ? stateMark('down', 'nothing') : h('span', {}, each.id === null ? h('bdi', {}, each.name || each.url) : h('a', { href: `#/sites/${each.id}` }, h('bdi', {}, each.name || each.url)), h('span', { class: 'muted' }, ` ${each.kind} `, h('bdi', {}, each.url)));
    return h('tr', {}, h('td', {}, h('bdi', {}, each.place)), h('td', {}, what), h('td', {}, each.not_taken.flatMap((text, i) => [i ? h('br') : '', h('bdi', {}, text)])));
  }

  async function remove(ids) {
    const left = [...ids];
    const work = async () => {
      for (let id = left.pop(); id !== undefined; id = left.pop()) {
        await request('DELETE', `/job/${id}`).catch((error) => {
          // Somebody was faster.
          if (error.status !== 404) throw error;
        });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    table.hidden = true;
    setText(about, '');
  }

  return {
    destroy() {
      gone = true;
      picture.destroy();
    },
  };
}
