// What the daemon last said, and telling the view about it, at most once a frame.

import { now, setServerTime } from './format.js';

const CHANGES_KEPT = 200;
const RATES_KEPT = 60;

/** Dispatches `update` with a Set of what changed: jobs, status, changes, models, channels. */
export class State extends EventTarget {
  hello = null;
  status = null;
  jobs = new Map();
  changes = [];
  channels = [];
  rates = [];
  lastHeard = null;
  #pending = new Set();
  #frame = 0;

  has(what) {
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
        if (!message.has.includes('jobs')) this.jobs.clear();
        this.#changed('hello', 'changes');
        break;
      case 'status':
        this.#status(message);
        break;
      case 'jobs':
        if (message.reset) {
          this.jobs = new Map(message.items.map((job) => [job.id, job]));
          this.#changed('list');
        } else {
          for (const line of message.items) this.#line(line);
        }
        this.#changed('jobs');
        break;
      case 'changes':
        this.changes.push(...message.items);
        this.changes.splice(0, this.changes.length - CHANGES_KEPT);
        this.dispatchEvent(new CustomEvent('news', { detail: message.items }));
        this.#changed('changes');
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

  #line(line) {
    const job = this.jobs.get(line.id);
    if (job === undefined) return;
    job.state = line.state;
    job.since = line.since ?? null;
    job.next_run = line.next ?? null;
    if (line.at !== undefined) {
      job.last = {
        ...(job.last ?? {}),
        checked_at: line.at,
        response_time: line.time ?? null,
        status: line.status ?? null,
        error: line.error ?? null,
        certificate_expires_at: line.expires ?? null,
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

/** How a job stands to the eye: its state, or `late` where no result came when one was due. */
export function shownState(job) {
  if ((job.state === 'up' || job.state === 'down') && isLate(job)) return 'late';
  return job.state;
}

export function isLate(job) {
  const at = job.last?.checked_at;
  return at !== undefined && now() - at > 2 * job.interval + (job.timeout ?? 10) + 5;
}

const ORDER = { down: 0, late: 1, unknown: 2, up: 3, stopped: 4, inactive: 5 };

/** Worst first, then by name. */
export function byUrgency(first, second) {
  return (
    ORDER[shownState(first)] - ORDER[shownState(second)] ||
    title(first).localeCompare(title(second), undefined, { numeric: true }) ||
    first.id - second.id
  );
}

export function title(job) {
  return job.name || job.url;
}

export function tally(jobs) {
  const counts = { up: 0, down: 0, late: 0, unknown: 0, stopped: 0, inactive: 0 };
  for (const job of jobs) counts[shownState(job)] += 1;
  return counts;
}
