// The page: login, the connection, which view is shown, light and dark.

import { get, request } from './api.js';
import { h, icon, setText } from './dom.js';
import { clock, tick } from './format.js';
import { Live } from './live.js';
import { State, tally } from './state.js';
import { overview } from './views/overview.js';

const VIEWS = [
  ['', 'Overview', 'overview', async () => overview],
  ['sites', 'Sites', 'sites', async () => (await import('./views/sites.js')).sites],
  ['models', 'Models', 'models', async () => (await import('./views/models.js')).models],
  ['logs', 'Logs', 'logs', async () => (await import('./views/logs.js')).logs],
  ['relay', 'Relay', 'relay', async () => (await import('./views/relay.js')).relay],
];
const NEEDS = { sites: 'jobs', models: 'models', logs: 'logs', relay: 'relay' };

const root = document.getElementById('view');
const body = document.body;
const tabs = document.querySelector('.tabs');
const connection = document.querySelector('.connection span');
const lost = document.querySelector('.lost');
const live = new Live();
const state = new State();
const context = { state, live, get, request, admin: () => state.hello?.role === 'admin' };

let shown = null;
let turn = 0;
let known = null;

// Views

function route() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decoded);
  return [name ?? '', rest];
}

/** A piece of the address, decoded; as it is if its encoding is not valid. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function show() {
  if (state.hello === null) return;
  const mine = (turn += 1);
  let [name, rest] = route();
  let load = VIEWS.find(([each]) => each === name)?.[3] ?? VIEWS[0][3];
  if (name === 'sites' && rest[0]) {
    load = async () => (await import('./views/site.js')).site;
  } else if (name === 'relay' && rest[0]) {
    load = async () => (await import('./views/channel.js')).channel;
  }
  const view = await load();
  if (mine !== turn) return;
  shown?.destroy?.();
  root.replaceChildren();
  shown = view(root, context, rest);
  markTabs(name);
  tick();
  // The top of a view is where one starts, with the eye and with the keyboard.
  scrollTo(0, 0);
}

function makeTabs() {
  const wanted = VIEWS.filter(([name]) => !NEEDS[name] || state.has(NEEDS[name]));
  tabs.replaceChildren(
    ...wanted.map(([name, text, sign]) =>
      h('a', { href: `#/${name}`, 'data-view': name }, icon(sign, 20), h('span', {}, text)),
    ),
  );
  tabs.hidden = false;
  markTabs(route()[0]);
  badge();
}

function markTabs(name) {
  for (const tab of tabs.children) {
    if (tab.dataset.view === name) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  const title = VIEWS.find(([each]) => each === name)?.[1] ?? 'Overview';
  document.title = documentTitle(title);
}

function documentTitle(title) {
  const down = tally(state.jobs.values()).down;
  return `${down ? `(${down} down) ` : ''}${title} – recodex-monitor`;
}

function badge() {
  const tab = tabs.querySelector('[data-view="sites"]');
  if (tab === null) return;
  const down = tally(state.jobs.values()).down;
  let mark = tab.querySelector('.badge');
  if (down === 0) {
    mark?.remove();
  } else {
    if (mark === null) tab.append((mark = h('span', { class: 'badge' })));
    setText(mark, String(down));
    mark.setAttribute('aria-label', `${down} down`);
  }
  const title = document.title.replace(/^\(\d+ down\) /, '');
  document.title = `${down ? `(${down} down) ` : ''}${title}`;
}

// The connection

let nextTry = 0;

function markConnection(how) {
  body.dataset.connection = how;
  setText(connection, { live: 'Live', lost: 'Not connected', connecting: 'Connecting' }[how]);
}

function sayLost() {
  if (body.dataset.connection !== 'lost') return;
  const since = state.lastHeard === null ? null : clock(state.lastHeard / 1000);
  const left = Math.max(0, Math.ceil((nextTry - Date.now()) / 1000));
  setText(
    lost,
    `The connection to the daemon is lost. ${since === null ? '' : `What you see is from ${since}. `}` +
      (left > 0 ? `Next try in ${left} s.` : 'Trying again…'),
  );
}

live.addEventListener('message', ({ detail }) => {
  if (body.dataset.connection !== 'live') {
    markConnection('live');
    lost.hidden = true;
  }
  if (!state.take(detail)) {
    state.lastHeard = Date.now();
    shown?.message?.(detail);
  }
});

live.addEventListener('lost', async ({ detail }) => {
  const first = body.dataset.connection !== 'lost';
  nextTry = Date.now() + detail;
  markConnection('lost');
  lost.hidden = false;
  sayLost();
  if (first) shown?.lost?.();
  // It may be that the login has ended: then there is no point in trying.
  const session = await get('/session').catch(() => null);
  if (session !== null && session.role === null) askToLogIn();
});

// Data

state.addEventListener('update', ({ detail }) => {
  if (detail.has('hello')) {
    const offered = JSON.stringify([state.hello.has, state.hello.role, state.hello.version]);
    makeTabs();
    if (shown === null || offered !== known) {
      known = offered;
      show();
      return;
    }
  }
  if (detail.has('jobs')) badge();
  shown?.update?.(detail);
  tick(root);
});

const announce = document.getElementById('announce');
state.addEventListener('news', ({ detail }) => {
  announce.textContent = detail.map((change) => `${change.name} is ${change.to}`).join('. ');
});

setInterval(() => {
  sayLost();
  if (body.dataset.connection === 'live') {
    tick();
    shown?.second?.();
  }
}, 1000);

// Light and dark

const THEMES = ['auto', 'light', 'dark'];
const SIGNS = { auto: 'auto', light: 'sun', dark: 'moon' };
const themeButton = document.getElementById('theme');

function setTheme(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.replaceChildren(icon(SIGNS[theme], 18));
  themeButton.setAttribute('aria-label', `Colours: ${theme}`);
  themeButton.title = `Colours: ${theme}`;
  themeButton.dataset.value = theme;
  try {
    localStorage.setItem('theme', theme);
  } catch {
    // Where nothing may be kept, the choice lasts as long as the page.
  }
  shown?.theme?.();
}

themeButton.addEventListener('click', () => {
  const at = THEMES.indexOf(themeButton.dataset.value);
  setTheme(THEMES[(at + 1) % THEMES.length]);
});

let kept = null;
try {
  kept = localStorage.getItem('theme');
} catch {
  // As above.
}
setTheme(THEMES.includes(kept) ? kept : 'auto');
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => shown?.theme?.());

// Login

const logout = document.getElementById('logout');
logout.addEventListener('click', async () => {
  live.stop();
  await request('DELETE', '/session').catch(() => null);
  location.reload();
});

function askToLogIn() {
  live.stop();
  turn += 1;
  shown?.destroy?.();
  shown = null;
  tabs.hidden = true;
  logout.hidden = true;
  lost.hidden = true;
  markConnection('connecting');
  setText(connection, 'Not logged in');
  const input = h('input', { id: 'token', type: 'password', autocomplete: 'current-password', required: true, spellcheck: 'false' });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const button = h('button', { class: 'primary', type: 'submit' }, 'Log in');
  const form = h(
    'form',
    {
      class: 'login panel',
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          begin(await request('POST', '/session', { token: input.value.trim() }));
        } catch (error) {
          problem.textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
          input.select();
        }
        button.disabled = false;
      },
    },
    h('h1', {}, 'Log in'),
    h('p', { class: 'muted' }, 'With an API token of this daemon. An administrator makes one with ', h('code', { class: 'mono' }, 'recodex-monitor token create'), '.'),
    // Password managers keep a name with each secret.
    h('input', { type: 'text', autocomplete: 'username', value: 'token', hidden: true, 'aria-hidden': 'true' }),
    h('label', { for: 'token' }, 'Token'),
    input,
    button,
    problem,
  );
  root.replaceChildren(form);
  input.focus();
}

function begin(session) {
  logout.hidden = !session.login;
  logout.title = session.name ?? '';
  if (body.dataset.connection !== 'live') markConnection('connecting');
  if (root.querySelector('form.login')) root.replaceChildren();
  live.start();
}

addEventListener('hashchange', show);

const session = await get('/session').catch(() => ({ role: 'unknown', login: false }));
if (session.role === null) askToLogIn();
else begin(session);
