// The page: login, the connection, which view is shown, light and dark.

import { get, request } from './api.js';
import { conditionOf } from './conditions.js';
import { h, icon, setText } from './dom.js';
import { showIcon } from './favicon.js';
import { clock, clockSkew, duration, isolated, tick, zone } from './format.js';
import { Live } from './live.js';
import { Places } from './places.js';
import { Picture, setLost } from './picture.js';
import { params, parse } from './route.js';
import { session } from './start.js';
import { State, tally, title as jobTitle } from './state.js';
import { VIEWS, known, load, loadAll } from './views.js';

// More changes at once are only counted by the voice.
const SPOKEN = 3;
const NAMES = { sites: { new: 'Add a site', import: 'Import', certificates: 'Certificates' }, incidents: { maintenance: 'Maintenance' } };
const NEEDS = { sites: 'jobs', incidents: 'past', models: 'models', logs: 'logs', relay: 'relay' };

const root = document.getElementById('view');
const body = document.body;
const tabs = document.querySelector('.tabs');
const connection = document.querySelector('.connection span');
const lost = document.querySelector('.lost');
const live = new Live();
const state = new State();
const places = new Places(root);
const context = { state, live, get, request, show, params, settle: () => places.settle(), admin: () => state.hello?.role === 'admin' };

let shown = null;
let turn = 0;
let offered = null;
let preloading = false;
let current = ''; // the name of the view that is shown

// Views

async function show() {
  if (state.hello === null) return;
  const mine = (turn += 1);
  const { name: wanted, rest } = parse(location.hash);
  const name = known(wanted);
  const off = NEEDS[name] && !state.has(NEEDS[name]);
  const view = off ? isOff : await load({ name, rest }).catch(() => (box) => failed(box));
  if (mine !== turn) return;
  shown?.destroy?.();
  root.replaceChildren();
  shown = view(root, context, rest);
  if (body.dataset.connection === 'lost') shown.lost?.();
  current = name;
  markTabs();
  tick();
  places.arrive();
}

/** In place of a view of a part that this daemon does not have. */
function isOff(box) {
  const picture = new Picture([]);
  picture.of(conditionOf(state, NEEDS[parse(location.hash).name]));
  box.append(picture.element);
  return picture;
}

/** In place of a view whose file cannot be loaded; `again` tries it once more. */
function failed(box, again = show) {
  box.append(
    h('p', { class: 'waiting', role: 'alert' }, 'This view cannot be loaded: the daemon cannot be reached. ', h('button', { type: 'button', onclick: () => again() }, 'Try again')),
  );
  return {};
}

/** All times are of this zone; a wrong clock here would put them wrong. */
function sayZone() {
  const skew = clockSkew();
  const wrong = Math.abs(skew) < 5 ? '' : ` The clock of this device is ${duration(Math.abs(skew))} ${skew > 0 ? 'ahead of' : 'behind'} the daemon's.`;
  setText(document.getElementById('zone'), `Times are those of ${zone()}.${wrong}`);
}

/** After an upgrade of the daemon, an open page is of the version before. */
function sayOutdated() {
  const mine = new URL(import.meta.url).pathname.match(/v-[0-9a-f]{12}/)?.[0];
  const old = mine !== undefined && state.hello.page !== mine;
  document.querySelector('.outdated')?.remove();
  if (old) lost.after(h('div', { class: 'outdated', role: 'status' }, 'The daemon was upgraded; this page is of the version before. ', h('button', { type: 'button', onclick: () => location.reload() }, 'Reload')));
}

async function preload() {
  // benchmarks/web.py counts what was loaded before.
  performance.mark('preload');
  if (await loadAll()) body.dataset.views = 'loaded';
}

function makeTabs() {
  const wanted = VIEWS.filter(([name]) => (!NEEDS[name] || state.has(NEEDS[name])) && (name !== 'topics' || context.admin()));
  tabs.replaceChildren(
    ...wanted.map(([name, text, sign]) =>
      h('a', { href: `#/${name}`, 'data-view': name }, icon(sign, 20), h('span', {}, text)),
    ),
  );
  tabs.hidden = false;
  markTabs();
  badge();
}

/** Tab and title say what is shown, not what the address asks for. */
function markTabs() {
  for (const tab of tabs.children) {
    if (tab.dataset.view === current) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  const { rest } = parse(location.hash);
  const of = current === 'models' ? rest.at(-1) : rest[0];
  const job = current === 'sites' ? state.jobs.get(Number(of)) : undefined;
  const title = VIEWS.find(([each]) => each === current)[1];
  const subject = current === '' ? '' : job ? jobTitle(job) : (NAMES[current]?.[of] ?? of);
  document.title = documentTitle(subject ? `${isolated(subject)} – ${title}` : title);
}

function documentTitle(title) {
  const down = tally(state.jobs.values()).down;
  return `${down ? `(${down} down) ` : ''}${title} – recodex-monitor`;
}

function sign() {
  if (body.dataset.connection !== 'live') showIcon('none');
  else showIcon(tally(state.jobs.values()).down ? 'down' : 'usual');
}

function badge() {
  sign();
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
  sign();
  setText(connection, { live: 'Live', lost: 'Not connected', connecting: 'Connecting' }[how]);
}

function sayLost() {
  if (body.dataset.connection !== 'lost') return;
  const since = state.lastHeard === null ? null : clock(state.lastHeard / 1000);
  const left = Math.max(0, Math.ceil((nextTry - Date.now()) / 1000));
  const [words, countdown] = lost.children;
  setText(words, `The connection to the daemon is lost. ${since === null ? '' : `What you see is from ${since}. `}`);
  setText(countdown, left > 0 ? `Next try in ${left} s.` : 'Trying again…');
}

live.addEventListener('message', ({ detail }) => {
  if (body.dataset.connection !== 'live') {
    markConnection('live');
    lost.hidden = true;
    setLost(null);
    shown?.found?.();
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
  if (first) {
    setLost(state.lastHeard ?? Date.now());
    shown?.lost?.();
  }
  // It may be that the login has ended: then there is no point in trying.
  const mine = turn;
  const session = await get('/session').catch(() => null);
  if (mine === turn && session !== null && session.role === null) askToLogIn();
});

live.addEventListener('refused', ({ detail }) => {
  turn += 1;
  shown?.destroy?.();
  shown = null;
  tabs.hidden = true;
  lost.hidden = true;
  markConnection('connecting');
  setText(connection, 'Not allowed');
  const picture = new Picture([]);
  picture.refused(`This page may not be seen with this token: ${detail}.`);
  root.replaceChildren(picture.element);
});

// Data

state.addEventListener('update', ({ detail }) => {
  if (!preloading && state.complete) {
    // On a slow link, what is shown comes first.
    preloading = true;
    setTimeout(preload, 500);
  }
  if (detail.has('hello')) {
    const offers = JSON.stringify([state.hello.has, state.hello.role, state.hello.version]);
    makeTabs();
    if (shown === null || offers !== offered) {
      sayOutdated();
      sayZone();
      offered = offers;
      show();
      return;
    }
  }
  if (detail.has('list') && shown !== null) markTabs();
  if (detail.has('jobs')) badge();
  shown?.update?.(detail);
  tick(root);
});

const announce = document.getElementById('announce');
state.addEventListener('news', ({ detail }) => {
  const down = detail.filter((change) => change.to === 'down').length;
  announce.textContent =
    detail.length > SPOKEN
      ? `${detail.length} changes: ${down} down, ${detail.length - down} others`
      : detail.map((change) => `${isolated(change.name)} is ${change.to}`).join('. ');
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

// Login

const logout = document.getElementById('logout');
logout.addEventListener('click', async () => {
  live.stop();
  // Nothing may ask for a token before the page is loaded again.
  turn += 1;
  await request('DELETE', '/session').catch(() => null);
  location.reload();
});

async function askToLogIn() {
  live.stop();
  turn += 1;
  shown?.destroy?.();
  shown = null;
  tabs.hidden = true;
  logout.hidden = true;
  lost.hidden = true;
  markConnection('connecting');
  setText(connection, 'Not logged in');
  const mine = turn;
  const module = await import('./login.js').catch(() => null);
  if (mine !== turn) return;
  root.replaceChildren();
  if (module === null) {
    failed(root, askToLogIn);
    return;
  }
  const form = module.loginForm(async (token) => begin(await request('POST', '/session', { token })));
  root.append(form);
  form.querySelector('[type="password"]').focus();
}

function begin(session) {
  logout.hidden = !session.login;
  logout.title = session.name ?? '';
  if (body.dataset.connection !== 'live') markConnection('connecting');
  if (root.querySelector('form.login')) root.replaceChildren();
  live.start();
}

addEventListener('hashchange', show);

// The address has the view, so the link must not change it.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  root.focus();
});

const who = (await session) ?? { role: 'unknown', login: false };
if (who.role === null) askToLogIn();
else begin(who);
