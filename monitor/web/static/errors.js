// Errors that are alike. Pure.

/** An error without what differs between sites: names, numbers, addresses. */
export function kindOfError(text) {
  return text
    .replace(/https?:\/\/\S+|wss?:\/\/\S+/g, '…')
    .replace(/\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b/g, '…')
    .replace(/\b[\w-]+(\.[\w-]+)+(:\d+)?/g, '…')
    .replace(/0x[0-9a-f]+|\b\d+(\.\d+)?\b/gi, '…')
    .slice(0, 160);
}
