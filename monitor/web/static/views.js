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

// The module of each view, and the style sheets that it needs more than the page has.
const LOADED = {
  overview: [() => import('./views/overview.js'), 'overview', 'timeline'],
  sites: [() => import('./views/sites.js'), 'sites'],
  site: [() => import('./views/site.js'), 'site', 'timeline'],
  editor: [() => import('./views/editor.js'), 'manage'],
  importing: [() => import('./views/importing.js'), 'manage'],
  certificates: [() => import('./views/certificates.js')],
  incidents: [() => import('./views/incidents.js'), 'timeline'],
  maintenance: [() => import('./views/maintenance.js'), 'manage'],
  models: [() => import('./views/models.js'), 'models', 'timeline'],
  logs: [() => import('./views/logs.js'), 'logs'],
  sender: [() => import('./views/sender.js'), 'timeline'],
  relay: [() => import('./views/relay.js'), 'relay'],
  channel: [() => import('./views/channel.js'), 'relay'],
  topics: [() => import('./views/topics.js'), 'manage'],
  topic: [() => import('./views/topic.js'), 'manage'],
};
const sheets = new Map();

function sheet(name) {
  if (!sheets.has(name)) {
    const link = document.createElement('link');
    link.rel = 'stylesheet';
    link.href = new URL(`./${name}.css`, import.meta.url);
    sheets.set(
      name,
      new Promise((resolve, reject) => {
        link.onload = resolve;
        link.onerror = () => {
          sheets.delete(name);
          link.remove();
          reject(new Error(`${name}.css cannot be loaded`));
        };
      }),
    );
    document.head.append(link);
  }
  return sheets.get(name);
}

async function loaded(name) {
  const [module, ...styles] = LOADED[name];
  const [found] = await Promise.all([module(), ...styles.map(sheet)]);
  return found[name];
}

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
export const load = ({ name, rest }) => loaded(moduleOf(known(name), rest));

/** Load all views, so that each one opens without a connection; false if some could not be loaded. */
export async function loadAll() {
  const done = await Promise.allSettled(Object.keys(LOADED).map(loaded));
  return done.every((each) => each.status === 'fulfilled');
}
