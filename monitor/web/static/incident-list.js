// Open incidents, those of one rule and cause together, with what one can do about them.

import { ago, h, icon, setText, sync } from './dom.js';
import { kindOfError } from './errors.js';
import { clock, date, duration, now } from './format.js';
import { menu } from './menu.js';

const NAMED = 4;
const SILENCES = [[3600, '1 hour'], [14400, '4 hours'], [86400, '1 day'], [604800, '7 days']];
const AT_ONCE = 4;

/** Where an incident's subject is shown, or null. */
export function subjectPlace(incident) {
  if (incident.job !== null) return `#/sites/${incident.job}`;
  if (incident.watch === 'rollout') return `#/models/${incident.subject.split('/').map(encodeURIComponent).join('/')}`;
  if (incident.watch === 'logs') return `#/logs/${encodeURIComponent(incident.subject)}`;
  if (incident.watch === 'feed') return '#/relay';
  return null;
}

/** Why it was opened, without what differs between subjects; a status is a cause of its own. */
function causeOf({ reason }) {
  const [cause] = reason.split(' (');
  return cause.startsWith('bad-status') ? cause : kindOfError(cause);
}

/** Groups of incidents: {key, incidents, since}, those that nobody knows of yet first, then the largest. */
export function groupsOf(incidents) {
  const groups = new Map();
  for (const each of incidents) {
    const how = each.suppressed_by ? 2 : each.acknowledged_at !== null ? 1 : 0;
    const key = `${how} ${each.rule} ${each.watch} ${causeOf(each)}`;
    let group = groups.get(key);
    if (group === undefined) groups.set(key, (group = { key, how, incidents: [], since: Infinity }));
    group.incidents.push(each);
    group.since = Math.min(group.since, each.opened_at);
  }
  return [...groups.values()].sort((first, second) => first.how - second.how || second.incidents.length - first.incidents.length || second.since - first.since);
}

/**
 * A panel with the open incidents that `wanted` names; it is hidden without any, unless `always`.
 * At most `most` groups are shown.
 */
export class IncidentList {
  #state;
  #request;
  #admin;
  #wanted;
  #always;
  #most;

  constructor({ state, request, admin }, { wanted = () => true, always = false, most = Infinity, title = 'Open incidents' } = {}) {
    this.#state = state;
    this.#request = request;
    this.#admin = admin;
    this.#wanted = wanted;
    this.#always = always;
    this.#most = most;
    this.problem = h('p', { class: 'error-line', role: 'alert', hidden: true });
    this.count = h('span', { class: 'more muted' });
    this.list = h('ul', { class: 'incidents' });
    this.none = h('p', { class: 'empty' });
    this.more = h('p', { class: 'empty' }, h('a', { href: '#/incidents' }, 'All incidents'));
    this.element = h('section', { class: 'panel apart', 'aria-label': title }, h('header', {}, h('h2', {}, title), this.count), this.problem, this.list, this.none, this.more);
    this.#show();
  }

  update(kinds) {
    if (kinds === null || kinds.has('incidents') || kinds.has('hello')) this.#show();
  }

  #show() {
    const found = this.#state.incidents;
    const incidents = [...(found?.values() ?? [])].filter(this.#wanted);
    this.element.hidden = incidents.length === 0 && !this.#always;
    const groups = groupsOf(incidents);
    const left = this.#state.openIncidents - (found?.size ?? 0);
    setText(this.count, incidents.length ? `${incidents.length}${left > 0 && this.#always ? `, and ${left} older ones` : ''}` : '');
    this.none.hidden = incidents.length > 0;
    setText(this.none, found === null ? 'Loading…' : 'Nothing is open.');
    this.more.hidden = groups.length <= this.#most;
    sync(
      this.list,
      groups.slice(0, this.#most),
      (group) => `${group.key} ${group.incidents.map((each) => `${each.id} ${each.acknowledged_by} ${each.suppressed_by}`).join()}`,
      (group) => this.#group(group),
    );
  }

  #group({ how, incidents, since }) {
    const [first] = incidents;
    const named = incidents.slice(0, incidents.length > NAMED + 1 ? NAMED : NAMED + 1);
    const rest = incidents.slice(named.length);
    const link = (each) => h('a', { href: `#/incidents/${each.id}` }, h('bdi', {}, each.title));
    const notes = [
      first.reason,
      `rule ${first.rule}`,
      first.acknowledged_at !== null ? `acknowledged by ${first.acknowledged_by} at ${clock(first.acknowledged_at).slice(0, 5)}` : null,
      first.suppressed_by ? `not sent: ${first.suppressed_by}` : null,
    ].filter(Boolean);
    return h(
      'li',
      { class: ['', 'known', 'quiet'][how] },
      h('span', { class: how ? 'tone-idle' : 'tone-down' }, icon(how === 1 ? 'up' : how === 2 ? 'stopped' : 'down')),
      h(
        'div',
        { class: 'what' },
        named.flatMap((each, i) => [i ? ', ' : '', h('b', {}, link(each))]),
        rest.length ? h('details', { class: 'inline' }, h('summary', {}, `and ${rest.length} more`), ...rest.slice(0, 200).flatMap((each, i) => [i ? ', ' : '', link(each)])) : null,
        h('p', { class: 'muted' }, h('bdi', {}, notes.join(' · '))),
      ),
      ago(since, 'for'),
      this.#admin() && how !== 2 ? this.#actions(incidents, how) : null,
    );
  }

  #actions(incidents, how) {
    const many = incidents.length > 1 ? ` ${incidents.length}` : '';
    const whom = `${incidents[0].title}${many ? ' and others' : ''}`;
    const silence = menu(`Silence ${whom}`, 'Silence…', SILENCES.map(([seconds, text]) => [`for ${text}`, () => this.#silence(incidents, seconds, text)]));
    return h(
      'div',
      { class: 'acts' },
      how === 0 ? h('button', { type: 'button', 'aria-label': `Acknowledge${many}${many && ':'} ${whom}`, onclick: (event) => this.#acknowledge(event.currentTarget, incidents) }, `Acknowledge${many}`) : null,
      silence,
    );
  }

  async #acknowledge(button, incidents) {
    button.disabled = true;
    await this.#try('acknowledged', async () => {
      const left = [...incidents];
      const work = async () => {
        for (let each = left.pop(); each !== undefined; each = left.pop()) {
          const found = await this.#request('POST', `/incident/${each.id}/acknowledge`);
          if (this.#state.incidents.has(found.id)) this.#state.incidents.set(found.id, found);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    });
    button.disabled = false;
    const focused = document.activeElement === button || document.activeElement === document.body;
    this.#show();
    // Its row is another one now: the keyboard continues there.
    if (focused) this.list.querySelector(`a[href="#/incidents/${incidents[0].id}"]`)?.focus();
  }

  async #silence(incidents, seconds, text) {
    const made = [];
    await this.#try('silenced', async () => {
      const jobs = incidents.map((each) => each.job);
      const matches = jobs.every((job) => job !== null) ? [{ jobs }] : incidents.map((each) => ({ subject: literal(each.subject), rule: literal(each.rule) }));
      for (const match of matches) made.push(await this.#request('POST', '/silence', { for: seconds, match, comment: incidents[0].title }));
      const { offerUndo } = await import('./undo.js');
      offerUndo(`${incidents[0].title}${incidents.length > 1 ? ' and others' : ''}: silent for ${text}.`, async () => {
        for (const each of made) await this.#request('DELETE', `/silence/${each.id}`);
      });
    });
  }

  async #try(what, work) {
    this.problem.hidden = true;
    try {
      await work();
    } catch (error) {
      setText(this.problem, `Not ${what}: ${error.message}.`);
      this.problem.hidden = false;
    }
  }
}

/** A subject as a pattern that matches it alone. */
function literal(text) {
  return text.replace(/[*?[]/g, '[$&]');
}

/** How long an incident was open, in words. */
export function lengthOf(incident) {
  return duration((incident.resolved_at ?? now()) - incident.opened_at);
}

export function moment(seconds) {
  return `${date(seconds)} ${clock(seconds)}`;
}
