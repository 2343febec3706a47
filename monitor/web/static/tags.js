// Tags of sites, and the sites in groups of them. Pure.

import { shownState } from './state.js';

/** All tags of the sites, sorted. */
export function tagsOf(jobs) {
  const found = new Set();
  for (const job of jobs) for (const tag of job.tags) found.add(tag);
  return [...found].sort((one, other) => one.localeCompare(other));
}

/**
 * Jobs in groups, one after the other: a heading {key, tag, sites, down}, and {key, job} for each of
 * its jobs, unless its tag is in `closed`. A job is in the group of each of its tags; those without
 * any come last.
 */
export function grouped(jobs, closed) {
  const groups = new Map(tagsOf(jobs).map((tag) => [tag, []]));
  groups.set('', []);
  for (const job of jobs) {
    for (const tag of job.tags.length ? new Set(job.tags) : ['']) groups.get(tag).push(job);
  }
  const found = [];
  for (const [tag, sites] of groups) {
    if (sites.length === 0) continue;
    const down = sites.filter((job) => shownState(job) === 'down').length;
    found.push({ key: `tag ${tag}`, tag, sites: sites.length, down });
    if (!closed.has(tag)) found.push(...sites.map((job) => ({ key: `${job.id} ${tag}`, job })));
  }
  return found;
}
