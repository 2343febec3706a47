// The one WebSocket: connects, says when it is lost, and comes back.

const SILENCE_MS = 6000;
const LONGEST_PAUSE_MS = 10000;

/** Dispatches `message` (detail: the message), `open`, and `lost` (detail: ms to the next try). */
export class Live extends EventTarget {
  #socket = null;
  #tries = 0;
  #silence = 0;
  #retry = 0;
  #wanted = false;

  constructor() {
    super();
    // A network that is back, or a page that is looked at again, need not wait.
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#hurry();
    });
  }

  start() {
    this.#wanted = true;
    this.#connect();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#socket?.close();
    this.#socket = null;
  }

  /** Send an object; false where there is no connection to send it on. */
  send(object) {
    return this.sendText(JSON.stringify(object));
  }

  /** The same of an object that is JSON already. */
  sendText(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  #hurry() {
    if (this.#wanted && this.#socket === null) {
      clearTimeout(this.#retry);
      this.#connect();
    }
  }

  #connect() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.#socket = socket;
    this.#listen();
    socket.onmessage = (event) => {
      if (socket !== this.#socket) return;
      this.#tries = 0;
      this.#listen();
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return;
      }
      this.dispatchEvent(new CustomEvent('message', { detail: message }));
    };
    socket.onopen = () => this.dispatchEvent(new Event('open'));
    socket.onclose = () => this.#lost(socket);
  }

  /** The server says something each second; a connection that is silent is as good as lost. */
  #listen() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#silence = setTimeout(() => {
      socket.close();
      this.#lost(socket);
    }, SILENCE_MS);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#silence);
    if (!this.#wanted) return;
    const pause = Math.min(500 * 2 ** this.#tries, LONGEST_PAUSE_MS) * (0.6 + 0.4 * Math.random());
    this.#tries += 1;
    this.#retry = setTimeout(() => this.#connect(), pause);
    this.dispatchEvent(new CustomEvent('lost', { detail: pause }));
  }
}
