// What needs attention: sites that are down or late, those with the same error together.

import { kindOfError } from './errors.js';
import { shownState, title } from './state.js';

const NAMED = 3;

/** Why a site is in trouble, in words. */
export function reasonOf(job) {
  if (shownState(job) === 'late') return 'not checked in time';
  return job.last?.error ?? (job.last?.status ? `status ${job.last.status}` : 'down');
}

/**
 * Groups of jobs: {how, error, jobs, since}, the largest first; alike errors of down sites are one.
 * The numbers in errors are left out, but 404 and 500 are different errors.
 */
export function troubles(jobs) {
  const groups = new Map();
  for (const job of jobs) {
    const how = shownState(job);
    if (how !== 'down' && how !== 'late') continue;
    const error = reasonOf(job);
    const key = `${how} ${job.last?.error ? kindOfError(error) : error} ${job.last?.status ?? ''}`;
    let group = groups.get(key);
    if (group === undefined) groups.set(key, (group = { key, how, error, jobs: [], since: Infinity }));
    group.jobs.push(job);
    group.since = Math.min(group.since, (how === 'down' ? job.since : job.last?.checked_at) ?? -Infinity);
  }
  const found = [...groups.values()];
  for (const group of found) {
    group.same = group.jobs.every((job) => reasonOf(job) === group.error);
    group.named = group.jobs.length <= NAMED + 1 ? group.jobs.length : NAMED;
  }
  return found.sort((first, second) => (first.how === second.how ? 0 : first.how === 'down' ? -1 : 1) || second.jobs.length - first.jobs.length || title(first.jobs[0]).localeCompare(title(second.jobs[0])));
}
