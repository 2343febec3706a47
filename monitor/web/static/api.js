// Requests to the API: JSON, or a Refused with the problem's words.

/** The URL of a path of the daemon, which a proxy may serve below another path. */
export const address = (path) => new URL(path.slice(1), new URL('.', document.baseURI)).href;

/** Why a request failed: `status` is that of HTTP, or 0 if the daemon cannot be reached. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask the API; `body` is sent as JSON, or a file as it is. */
export async function request(method, path, body) {
  const isFile = body instanceof Blob;
  let answer;
  try {
    answer = await fetch(address(path), {
      method,
      headers: body === undefined ? { accept: 'application/json' } : { accept: 'application/json', 'content-type': isFile ? 'text/plain' : 'application/json' },
      body: body === undefined || isFile ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    throw new Refused('the daemon cannot be reached', 0);
  }
  const found = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(found?.detail ?? `the daemon answered ${answer.status}`, answer.status);
  return found;
}

export const get = (path) => request('GET', path);
