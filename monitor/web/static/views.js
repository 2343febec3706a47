// Which view an address has. Each one is loaded when it is asked for, and all of them once there is time.

export const VIEWS = [
  ['', 'Overview', 'overview'],
  ['sites', 'Sites', 'sites'],
  ['incidents', 'Incidents', 'incidents'],
  ['models', 'Models', 'models'],
  ['logs', 'Logs', 'logs'],
  ['relay', 'Relay', 'relay'],
  ['topics', 'Topics', 'topics'],
];

const LOADED = {
  overview: async () => (await import('./views/overview.js')).overview,
  sites: async () => (await import('./views/sites.js')).sites,
  site: async () => (await import('./views/site.js')).site,
  editor: async () => (await import('./views/editor.js')).editor,
  importing: async () => (await import('./views/importing.js')).importing,
  certificates: async () => (await import('./views/certificates.js')).certificates,
  incidents: async () => (await import('./views/incidents.js')).incidents,
  maintenance: async () => (await import('./views/maintenance.js')).maintenance,
  models: async () => (await import('./views/models.js')).models,
  logs: async () => (await import('./views/logs.js')).logs,
  sender: async () => (await import('./views/sender.js')).sender,
  relay: async () => (await import('./views/relay.js')).relay,
  channel: async () => (await import('./views/channel.js')).channel,
  topics: async () => (await import('./views/topics.js')).topics,
  topic: async () => (await import('./views/topic.js')).topic,
};

function moduleOf(name, [first, second]) {
  if (name === 'sites') {
    if (first === 'new' || second === 'edit' || second === 'copy') return 'editor';
    if (first === 'import') return 'importing';
    return first === 'certificates' ? 'certificates' : first ? 'site' : 'sites';
  }
  if (name === 'incidents') return first === 'maintenance' ? 'maintenance' : 'incidents';
  if (name === 'logs') return first ? 'sender' : 'logs';
  if (name === 'relay') return first ? 'channel' : 'relay';
  if (name === 'topics') return first ? 'topic' : 'topics';
  return name || 'overview';
}

/** Which of VIEWS a fragment's name means; the first one, if there is no such view. */
export const known = (wanted) => (VIEWS.find(([name]) => name === wanted) ?? VIEWS[0])[0];

/** Load the view of a fragment's parts. */
export const load = ({ name, rest }) => LOADED[moduleOf(known(name), rest)]();

/** Load all views, so that each one opens without a connection; false if some could not be loaded. */
export async function loadAll() {
  const done = await Promise.allSettled(Object.values(LOADED).map((each) => each()));
  return done.every((each) => each.status === 'fulfilled');
}
