// What needs no other part of the page begins before these are here: loading the view, and asking who this is.

import { get } from './api.js';
import { parse } from './route.js';
import { load } from './views.js';

/** The session, or null if the daemon cannot be reached. */
export const session = get('/session').catch(() => null);

load(parse(location.hash)).catch(() => null);
