// What the daemon last said, and telling the view about it, at most once a frame.

import { now, setServerTime } from './format.js';

const CHANGES_KEPT = 200;
const RATES_KEPT = 60;

/** Dispatches `update` with a Set of what changed: jobs, status, changes, models, channels, incidents. */
export class State extends EventTarget {
  hello = null;
  status = null;
  jobs = new Map();
  /** Whether all jobs are here, and how many there will be. */
  complete = false;
  expected = 0;
  #coming = this.jobs;
  changes = [];
  /** The latest channels; null until they were sent. */
  channels = null;
  /** Incidents that are open, by id; null until they were sent. */
  incidents = null;
  openIncidents = 0;
  rates = [];
  lastHeard = null;
  #pending = new Set();
  #frame = 0;

  /** Whether the daemon has a kind of data; `past` is what incidents come from. */
  has(what) {
    if (what === 'past') return this.has('incidents') || this.has('history');
    return this.hello?.has.includes(what) ?? false;
  }

  take(message) {
    this.lastHeard = Date.now();
    switch (message.type) {
      case 'hello':
        setServerTime(message.time);
        this.hello = message;
        this.changes = message.changes;
        this.rates = [];
        this.channels = null;
        if (!message.has.includes('jobs')) {
          this.jobs.clear();
          this.complete = true;
        }
        this.#changed('hello', 'changes');
        break;
      case 'status':
        this.#status(message);
        break;
      case 'jobs':
        this.#jobs(message);
        this.#changed('jobs');
        break;
      case 'changes':
        this.changes.push(...message.items);
        this.changes.splice(0, this.changes.length - CHANGES_KEPT);
        this.dispatchEvent(new CustomEvent('news', { detail: message.items }));
        this.#changed('changes');
        break;
      case 'incidents':
        if (message.reset || this.incidents === null) this.incidents = new Map();
        for (const each of message.items) {
          if (each.resolved_at === null) this.incidents.set(each.id, each);
          else this.incidents.delete(each.id);
        }
        this.openIncidents = message.open;
        this.#changed('incidents');
        break;
      case 'channels':
        this.channels = message.items;
        this.#changed('channels');
        break;
      default:
        return false;
    }
    return true;
  }

  /** Take a job as an answer of the API has it: until the daemon sends it to all pages, it would be unknown here. */
  learn(entry) {
    const isNew = !this.jobs.has(entry.id);
    this.jobs.set(entry.id, { ...this.jobs.get(entry.id), ...entry });
    this.#changed('jobs', ...(isNew ? ['list'] : []));
  }

  #jobs({ reset, add, items, gone, left }) {
    if (reset) {
      this.expected = left;
      // What is shown stays until a second snapshot is here.
      this.#coming = new Map();
      if (!this.complete) this.jobs = this.#coming;
    }
    for (const jobs of new Set([this.jobs, this.#coming])) {
      for (const item of items) {
        if (add) jobs.set(item.id, item);
        else this.#line(jobs.get(item.id), item);
      }
      for (const id of gone ?? []) jobs.delete(id);
    }
    if (left === 0) {
      this.jobs = this.#coming;
      this.complete = true;
    }
    if (add || reset || gone) this.#changed('list');
  }

  #status(message) {
    setServerTime(message.time);
    const before = this.status;
    this.status = message;
    if (message.relay && before?.relay) {
      const passed = message.time - before.time;
      if (passed > 0.2) {
        this.rates.push({
          messages: Math.max(0, (message.relay.messages - before.relay.messages) / passed),
          deliveries: Math.max(0, (message.relay.deliveries - before.relay.deliveries) / passed),
        });
        if (this.rates.length > RATES_KEPT) this.rates.shift();
      }
    }
    if (before && message.models !== before.models) this.#changed('models');
    this.#changed('status');
  }

  #line(job, line) {
    if (job === undefined) return;
    job.state = line.state;
    job.since = line.since ?? null;
    job.next_run = line.next ?? null;
    job.stopped_until = line.until ?? null;
    if (line.at !== undefined) {
      job.last = {
        ...(job.last ?? {}),
        // A line has none; those of the check before are not of this one.
        phases: null,
        checked_at: line.at,
        response_time: line.time ?? null,
        status: line.status ?? null,
        error: line.error ?? null,
        certificate_expires_at: line.expires ?? null,
        degraded: line.degraded ?? false,
      };
    }
  }

  #changed(...what) {
    for (const each of what) this.#pending.add(each);
    if (this.#frame === 0) {
      // Not in a frame: a page in the background should be right when it is looked at.
      this.#frame = setTimeout(() => {
        this.#frame = 0;
        const kinds = this.#pending;
        this.#pending = new Set();
        this.dispatchEvent(new CustomEvent('update', { detail: kinds }));
      }, 30);
    }
  }
}

/** How a job stands to the eye: its state, `degraded`, or `late` where no result came when one was due. */
export function shownState(job) {
  if ((job.state === 'up' || job.state === 'down') && isLate(job)) return 'late';
  if (job.state === 'up' && job.last?.degraded) return 'degraded';
  // "unknown: depends on 7"
  return isBlocked(job) ? 'unknown' : job.state;
}

/** Whether the job's state is unknown because one that it depends on is down. */
export function isBlocked(job) {
  return job.state.startsWith('unknown:');
}

export function isLate(job) {
  const at = job.last?.checked_at;
  return at !== undefined && now() - at > 2 * job.interval + (job.timeout ?? 10) + 5;
}

export function title(job) {
  return job.name || job.url;
}

/** How many jobs are in each shown state; `blocked` are those that isBlocked() names. */
export function tally(jobs) {
  const counts = { up: 0, down: 0, late: 0, degraded: 0, unknown: 0, blocked: 0, stopped: 0, inactive: 0 };
  for (const job of jobs) counts[isBlocked(job) ? 'blocked' : shownState(job)] += 1;
  return counts;
}
