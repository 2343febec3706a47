// Errors that are alike.

// Thousands of sites are asked about each second.
const KEPT = 20000;
const known = new Map();

/** An error without what differs between sites: names, numbers, addresses. */
export function kindOfError(text) {
  let kind = known.get(text);
  if (kind === undefined) {
    if (known.size >= KEPT) known.clear();
    known.set(text, (kind = withoutNames(text)));
  }
  return kind;
}

function withoutNames(text) {
  return text
    .replace(/https?:\/\/\S+|wss?:\/\/\S+/g, '…')
    .replace(/\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b/g, '…')
    .replace(/\b[\w-]+(\.[\w-]+)+(:\d+)?/g, '…')
    .replace(/0x[0-9a-f]+|\b\d+(\.\d+)?\b/gi, '…')
    .slice(0, 160);
}
