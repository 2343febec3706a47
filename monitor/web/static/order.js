// The order of sites: the worst first, then by name, cheap enough for thousands of them each second.

import { shownState, title } from './state.js';

// Comparing by a collator is many times as fast as localeCompare with options.
const NAMES = new Intl.Collator(undefined, { numeric: true });
const STATES = ['down', 'late', 'degraded', 'unknown', 'up', 'stopped', 'inactive'];

/** Keeps jobs sorted by name, so that only new names are ever compared. */
export class Order {
  #sorted = []; // {id, title}
  #titles = new Map();

  /** Return those of `jobs` (a Map by id) that `matches`, in order. */
  of(jobs, matches) {
    this.#sort(jobs);
    const groups = new Map(STATES.map((state) => [state, []]));
    for (const { id } of this.#sorted) {
      const job = jobs.get(id);
      const how = shownState(job);
      if (matches(job, how)) groups.get(how).push(job);
    }
    return [].concat(...groups.values());
  }

  #sort(jobs) {
    const fresh = [];
    for (const job of jobs.values()) {
      const name = title(job);
      if (this.#titles.get(job.id) !== name) fresh.push({ id: job.id, title: name });
    }
    if (fresh.length === 0 && this.#sorted.length === jobs.size) return;
    const renewed = new Set(fresh.map(({ id }) => id));
    const rest = this.#sorted.filter(({ id }) => jobs.has(id) && !renewed.has(id));
    fresh.sort(compare);
    const merged = [];
    let at = 0;
    for (const each of rest) {
      while (at < fresh.length && compare(fresh[at], each) < 0) merged.push(fresh[at++]);
      merged.push(each);
    }
    merged.push(...fresh.slice(at));
    this.#sorted = merged;
    this.#titles = new Map(merged.map((each) => [each.id, each.title]));
  }
}

const compare = (first, second) => NAMES.compare(first.title, second.title) || first.id - second.id;
