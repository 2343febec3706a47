// The entries that a log view has, newest first: loaded pages, new entries, and those that are held back.

const KEPT = 20000;
const PAGE = 300;

// A key is of one entry for as long as the page is open, whatever is asked for next.
let numbered = 0;

const identity = (entry) => `${entry.time} ${entry.sender} ${entry.level} ${entry.message}`;

/** The entries of one query; no I/O but `get`. */
export class LogTail {
  entries = [];
  held = [];
  /** Whether there are older ones. */
  more = false;
  #get;
  #kind;
  #query;
  #cursor = null;

  constructor(get, kind, query) {
    this.#get = get;
    this.#kind = kind;
    this.#query = query;
  }

  #address(values) {
    const query = new URLSearchParams(this.#query);
    for (const [key, value] of Object.entries(values)) query.set(key, value);
    return `/${this.#kind}?${query}`;
  }

  #named(entries) {
    for (const entry of entries) {
      entry.key = numbered += 1;
      entry.kind = this.#kind;
    }
    return entries;
  }

  /** Load the newest page, in place of what is here or joined to it. */
  async load() {
    const found = await this.#get(this.#address({ limit: PAGE }));
    const fresh = this.#named(found[this.#kind === 'log' ? 'logs' : 'notifications']);
    const end = fresh.length ? this.entries.map(identity).indexOf(identity(fresh.at(-1))) : -1;
    if (end >= 0) {
      // It reaches what is here: the older ones stay.
      this.entries = [...fresh, ...this.entries.slice(end + 1)];
    } else {
      this.entries = fresh;
      this.#cursor = found.cursor;
      this.more = found.cursor !== null;
    }
    this.#trim();
  }

  /** Load the page before what is here. */
  async older() {
    const last = this.entries.at(-1);
    const place = this.#cursor !== null ? { cursor: this.#cursor } : { until: last.time + 1e-6 };
    const found = await this.#get(this.#address({ limit: PAGE, ...place }));
    const list = found[this.#kind === 'log' ? 'logs' : 'notifications'];
    const known = this.#cursor !== null ? new Set() : new Set(this.entries.filter((entry) => entry.time >= last.time).map(identity));
    const fresh = this.#named(list.filter((entry) => !known.has(identity(entry))));
    this.entries = [...this.entries, ...fresh];
    this.#cursor = found.cursor;
    this.more = found.cursor !== null;
  }

  /** Take entries that came live, newest first; with `hold` they wait for release(). */
  take(fresh, hold) {
    const known = new Set(this.entries.slice(0, 2 * fresh.length + 50).map(identity));
    const added = this.#named(fresh.filter((entry) => !known.has(identity(entry))));
    if (hold) {
      this.held = [...added, ...this.held].slice(0, KEPT);
      return;
    }
    this.entries = [...added, ...this.entries];
    this.#trim();
  }

  /** Show what was held back. */
  release() {
    const held = this.held;
    this.held = [];
    if (held.length === KEPT) {
      // Some may be missing between both.
      this.entries = held;
      this.#cursor = null;
      this.more = true;
      return;
    }
    this.entries = [...held, ...this.entries];
    this.#trim();
  }

  #trim() {
    if (this.entries.length <= KEPT) return;
    this.entries.length = KEPT;
    this.#cursor = null;
    this.more = true;
  }
}

/**
 * Yield all entries of a query as JSON lines, a page at a time; a rate limit only slows it down.
 * `stopped` says whether to stop.
 */
export async function* exported(get, kind, query, stopped) {
  let cursor = null;
  let tries = 0;
  do {
    let found;
    try {
      found = await get(`/${kind}?${new URLSearchParams([...query, ['limit', '5000'], ...(cursor === null ? [] : [['cursor', cursor]])])}`);
      tries = 0;
    } catch (error) {
      tries += 1;
      if (error.status !== 429 || tries > 30) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      continue;
    }
    yield found[kind === 'log' ? 'logs' : 'notifications'];
    cursor = found.cursor;
  } while ((cursor !== null || tries > 0) && !stopped());
}
