// Certificates by expiry: how long each is still good, and how urgent that is.

import { duration, now } from './format.js';

const SOON_S = 30 * 86400;
const URGENT_S = 14 * 86400;

/** What to say of an expiry (s since the epoch), and its tone: up, warn or down. */
export function certificateText(expires) {
  const left = expires - now();
  if (left <= 0) return { tone: 'down', text: `expired ${duration(-left)} ago` };
  const days = Math.floor(left / 86400);
  return { tone: left < URGENT_S ? 'down' : left < SOON_S ? 'warn' : 'up', text: days === 0 ? `${duration(left)} left` : `${days} ${days === 1 ? 'day' : 'days'} left` };
}

/** Jobs with a certificate, the next to expire first. */
export function byExpiry(jobs) {
  return [...jobs].filter((job) => job.last?.certificate_expires_at).sort((first, second) => first.last.certificate_expires_at - second.last.certificate_expires_at);
}
