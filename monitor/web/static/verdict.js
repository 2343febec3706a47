// The verdict over all parts: sites, models, logs, the relay's feed and the daemon's own. Pure.

import { tally } from './state.js';

const RANK = ['up', 'unknown', 'degraded', 'down'];

/** "1 site is", "2 sites are". */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? `${one}` : many}`;
}

const are = (count) => (count === 1 ? 'is' : 'are');
const were = (count) => (count === 1 ? 'was' : 'were');

/**
 * All that is known, as reasons, the worst first: {how, text, to}. `how` is up, unknown, degraded
 * or down, or `note` for what is worth knowing but no trouble; `to` leads to the details.
 *
 * `sites` is a condition or null (conditions.js), `models` and `logs` are those of facts.js.
 */
export function reasons({ state, sites, models, logs }) {
  const found = [];
  const add = (how, text, to = null) => found.push({ how, text, to });
  const parts = Object.entries(state.status?.parts ?? {});
  if (state.has('jobs')) {
    if (sites?.kind === 'loading') add('unknown', sites.words, '#/sites');
    else if (sites?.kind === 'away') add('unknown', 'The sites are not known', '#/sites');
    else if (sites === null) siteReasons(tally(state.jobs.values()), add);
  }
  for (const [how, states] of [['degraded', ['degraded']], ['unknown', ['starting', 'stopping']]]) {
    const names = parts.filter(([, part]) => states.includes(part.health)).map(([name]) => name);
    if (names.length) add(how, `${names.join(', ')} ${are(names.length)} ${state.status.parts[names[0]].health}`, '#/');
  }
  if (state.status?.away) add('unknown', 'The database is unavailable', '#/');
  const relay = state.status?.relay;
  if (relay?.brokers === 0) {
    if (relay.messages > 0) add('degraded', 'No broker is connected to the relay any more', '#/relay');
    else add('note', 'No broker has connected to the relay yet', '#/relay');
  }
  if (state.has('models')) modelReasons(models, add);
  if (state.has('logs')) logReasons(logs, add);
  return found.sort((first, second) => RANK.indexOf(second.how) - RANK.indexOf(first.how));
}

function siteReasons(counts, add) {
  if (counts.down) add('down', `${counted(counts.down, 'site')} ${are(counts.down)} down`, '#/sites?state=down');
  if (counts.late) add('degraded', `${counted(counts.late, 'site')} ${were(counts.late)} not checked in time`, '#/sites?state=down');
  if (counts.degraded) add('degraded', `${counted(counts.degraded, 'site')} ${are(counts.degraded)} degraded`, '#/sites?state=up');
  if (counts.unknown) add('unknown', `${counted(counts.unknown, 'site')} ${counts.unknown === 1 ? 'has' : 'have'} no result yet`, '#/sites?state=unknown');
  if (counts.blocked) add('unknown', `${counted(counts.blocked, 'site')} ${counts.blocked === 1 ? 'depends' : 'depend'} on one that is down`, '#/sites?state=unknown');
}

function modelReasons(models, add) {
  if (models.kind === 'loading') add('unknown', 'Loading the models…', '#/models');
  else if (models.kind === 'away') add('unknown', 'The models are not known', '#/models');
  else if (models.kind === 'truth') {
    if (models.failed) add('degraded', `The last rollout of ${counted(models.failed, 'model')} failed`, '#/models');
    if (models.unready) add('degraded', `${counted(models.unready, 'model')} ${are(models.unready)} not ready`, '#/models');
  }
}

function logReasons(logs, add) {
  const to = '#/logs?level=error';
  if (logs.kind === 'loading') add('unknown', 'Loading the logs…', to);
  else if (logs.kind === 'away') add('unknown', 'The logs are not known', to);
  else if (logs.kind === 'truth' && logs.errors) {
    const text = `${counted(logs.errors, 'error')} in the logs in the last ${logs.minutes} min`;
    if (logs.burst) add('degraded', `A burst of errors: ${text}`, to);
    else add('note', text, to);
  }
}

/** The headline: {how, text}, of the reasons, of which it takes the first trouble. */
export function verdict(state, found) {
  const worst = found.find((each) => each.how !== 'note');
  if (state.hello === null || state.status === null) return { how: 'loading', text: 'Loading…' };
  if (worst === undefined) {
    const counts = tally(state.jobs.values());
    const watched = counts.up > 0;
    if (watched) return { how: 'up', text: 'Everything is up' };
    if (counts.stopped + counts.inactive > 0) return { how: 'unknown', text: 'No site is being checked' };
    return { how: 'up', text: 'The daemon is well' };
  }
  if (worst.how === 'unknown' && worst.text.startsWith('Loading')) return { how: 'loading', text: worst.text };
  return { how: worst.how, text: worst.text };
}
