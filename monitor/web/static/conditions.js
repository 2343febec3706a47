// How data stands that the daemon sends by itself: null if it is there to be shown.

const PART_OF = { jobs: 'probes', history: 'aggregation', models: 'cluster', logs: 'logs', channels: 'relay' };
const OFF = {
  jobs: 'No sites are checked here: the part probes is off.',
  history: 'No past is kept here: the part aggregation is off.',
  past: 'No incidents are known here: the parts alerts and aggregation are off.',
  models: 'No models are watched here: the part cluster is off.',
  logs: 'No logs are taken here: the part logs is off.',
  relay: 'There is no relay here: the part relay is off.',
};

/** Why a kind of data may be wrong or missing now, by the health of its part. */
export function problemOf(state, what) {
  const part = state.status?.parts[PART_OF[what] ?? what];
  if (part === undefined || part.health === 'ok') return null;
  const words = part.summary || part.health;
  return { kind: 'away', words: `The part ${PART_OF[what] ?? what} is ${part.health}: ${words}.`.replace(/\.\.$/, '.') };
}

/** The condition of `jobs`, `channels`, `status`, ... in what was sent. */
export function conditionOf(state, what) {
  if (state.hello === null) return { kind: 'loading', words: 'Loading…' };
  if (what === 'channels' && state.has('relay') && !state.has('channels')) {
    return { kind: 'refused', words: `Channels are shown to administrators; this token has the role ${state.hello.role}.` };
  }
  if (what !== 'channels' && OFF[what] && !state.has(what)) return { kind: 'empty', words: OFF[what] };
  if (state.status === null) return { kind: 'loading', words: 'Loading…' };
  if (what === 'jobs') {
    // Without probes here, the sites are those of a shared database.
    if (state.status.away && !state.status.parts.probes) return { kind: 'away', words: `The sites cannot be read: ${state.status.away}.` };
    if (!state.complete) return { kind: 'loading', words: `Loading ${state.jobs.size} of ${state.expected} sites` };
    if (state.jobs.size === 0) return problemOf(state, 'jobs') ?? { kind: 'empty', words: 'There are no sites yet.' };
  }
  if (what === 'channels' && state.channels === null) return { kind: 'loading', words: 'Loading the channels…' };
  if (what === 'channels' && state.channels.length === 0) return { kind: 'empty', words: 'No channel yet: nothing has been sent.' };
  return null;
}
