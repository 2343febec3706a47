// The one WebSocket: connects, says when it is lost, and comes back.

import { address } from './api.js';

const COMPRESSED = 'DecompressionStream' in globalThis;
// A slow network may need some seconds for one piece of the snapshot.
const SILENCE_MS = 15000;
const LONGEST_PAUSE_MS = 10000;

function decompressed(data) {
  return new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
}

/** Dispatches `message` (detail: the message), `open`, `lost` (detail: ms to the next try), and
 * `refused` (detail: why) if there is no point in trying again. */
export class Live extends EventTarget {
  #socket = null;
  #tries = 0;
  #silence = 0;
  #retry = 0;
  #wanted = false;
  #queue = Promise.resolve();

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
    const socket = new WebSocket(address(`/live${COMPRESSED ? '?gzip' : ''}`).replace(/^http/, 'ws'));
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#listen();
    socket.onmessage = (event) => {
      if (socket !== this.#socket) return;
      this.#tries = 0;
      this.#listen();
      // One after the other: decompressing takes a moment.
      this.#queue = this.#queue.then(() => this.#deliver(socket, event.data));
    };
    socket.onopen = () => this.dispatchEvent(new Event('open'));
    socket.onclose = (event) => {
      if (event.code === 1008 && socket === this.#socket) {
        this.stop();
        this.dispatchEvent(new CustomEvent('refused', { detail: event.reason }));
      } else this.#lost(socket);
    };
  }

  async #deliver(socket, data) {
    let message;
    try {
      message = JSON.parse(typeof data === 'string' ? data : await decompressed(data));
    } catch {
      return;
    }
    if (socket === this.#socket) this.dispatchEvent(new CustomEvent('message', { detail: message }));
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
