// The address: which view, of what, and its state, as #/VIEW/OF?KEY=VALUE.

/** The parts of a fragment: the view's name, what it is of, and its state. */
export function parse(fragment) {
  const [path, ...query] = fragment.replace(/^#\/?/, '').split('?');
  const [name, ...rest] = path.split('/').map(decoded);
  return { name: name ?? '', rest, query: new URLSearchParams(query.join('?')) };
}

/** A piece of the address, decoded; as it is if its encoding is not valid. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A fragment that leads to a view; empty values are left out. */
export function link(path, values = {}) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => !isEmpty(value)));
  return `#/${path}${query.size ? `?${query}` : ''}`;
}

const isEmpty = (value) => value === null || value === undefined || value === '' || value === false;

/** The state of the shown view, kept in the address, so that a reload or a link has it. */
export const params = {
  get(key, otherwise = '') {
    return parse(location.hash).query.get(key) ?? otherwise;
  },

  /** All values of a key that may be there several times. */
  all(key) {
    return parse(location.hash).query.getAll(key);
  },

  /** Change some keys, an empty value removes one; a list is there once for each of its items. */
  set(values) {
    const [path] = location.hash.split('?');
    const { query } = parse(location.hash);
    for (const [key, value] of Object.entries(values)) {
      query.delete(key);
      for (const each of Array.isArray(value) ? value : [value]) {
        if (!isEmpty(each)) query.append(key, String(each));
      }
    }
    const address = `${path || '#/'}${query.size ? `?${query}` : ''}`;
    // This neither loads the view again nor makes a step for Back.
    if (address !== location.hash) history.replaceState(history.state, '', address);
  },
};
