// What the verdict needs of models and logs, asked for while the overview is shown.

import { now } from './format.js';

const REFRESH_MS = 30000;
const RETRY_MS = 5000;
// Models may change each second.
const SOON_MS = 3000;
const RECENT_S = 600;
const BEFORE_S = 3600;
// A burst has at least this many errors, and this many times as many as usual.
const BURST = 20;
const TIMES = 5;

/** Asks for both; `changed` is called when they are known or not known any more. */
export class Facts {
  models = { kind: 'loading' };
  logs = { kind: 'loading' };
  #state;
  #get;
  #changed;
  #timer = 0;
  #soon = 0;
  #gone = false;

  constructor(state, get, changed) {
    this.#state = state;
    this.#get = get;
    this.#changed = changed;
    this.refresh();
  }

  async refresh() {
    this.#wait();
    const [models, logs] = await Promise.all([
      this.#ask('models', () => this.#askModels()),
      this.#ask('logs', () => this.#askLogs()),
    ]);
    if (this.#gone) return;
    this.models = models;
    this.logs = logs;
    const away = models.kind === 'away' || logs.kind === 'away';
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), away ? RETRY_MS : REFRESH_MS);
    this.#changed();
  }

  /** Something has changed: ask again, soon. */
  soon() {
    this.#soon ||= setTimeout(() => this.refresh(), SOON_MS);
  }

  destroy() {
    this.#gone = true;
    this.#wait();
  }

  /** Nothing is asked by itself. */
  #wait() {
    clearTimeout(this.#timer);
    clearTimeout(this.#soon);
    this.#soon = 0;
  }

  async #ask(what, ask) {
    if (!this.#state.has(what)) return { kind: 'empty' };
    try {
      return { kind: 'truth', ...(await ask()) };
    } catch (error) {
      return { kind: error.status === 403 ? 'refused' : 'away' };
    }
  }

  async #askModels() {
    const { items } = await this.#get('/model?limit=1000');
    const failed = items.filter((model) => model.last_rollout?.outcome === 'failed');
    const unready = items.filter((model) => !failed.includes(model) && (model.replicas_wanted ?? 0) > (model.replicas_ready ?? 0));
    return { failed: failed.length, unready: unready.length };
  }

  async #askLogs() {
    const until = now();
    const { start, width, levels } = await this.#get(`/log/histogram?min_level=error&from=${until - BEFORE_S - RECENT_S}&until=${until}&bars=70`);
    let recent = 0;
    let before = 0;
    for (const counts of Object.values(levels)) {
      counts.forEach((count, i) => {
        if (start + (i + 0.5) * width >= until - RECENT_S) recent += count;
        else before += count;
      });
    }
    const usual = (before * RECENT_S) / BEFORE_S;
    return { errors: recent, minutes: RECENT_S / 60, burst: recent >= BURST && recent >= TIMES * usual };
  }
}
