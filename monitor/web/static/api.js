// Requests to the API: JSON, or an Error with the problem's words.

export async function request(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? { accept: 'application/json' } : { accept: 'application/json', 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    throw new Error('the daemon cannot be reached');
  }
  const found = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(found?.detail ?? `the daemon answered ${answer.status}`);
  return found;
}

export const get = (path) => request('GET', path);
