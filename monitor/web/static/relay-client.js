// A client of the relay that stays: it reconnects, resumes, and tells truthfully what it missed.
//
//     import { RelayClient } from "./relay-client.js";
//     const relay = new RelayClient("wss://recodex.example/ws/");
//     relay.subscribe("student_42", {
//       message(data, { seq }) { ... },   // each message once, in order
//       reset({ anew }) { ... },          // some may be missing; anew: count from the beginning
//       gap({ since, until }) { ... },    // the relay itself had no broker then
//       end({ finished, reason }) { ... },
//     });
//
// Speaks recodex.monitor.v2, all channels on one connection. No dependencies, no build step.

import { Position } from "./relay-position.js";

export const SUBPROTOCOL = "recodex.monitor.v2";

const RETRY_S = [0.5, 15];
const OPEN_S = 10;

// What a close code means: null is 'never come back', else between which delays (s) to do so.
// The relay's documentation has the same table.
const NEVER = null;
export const COME_BACK = new Map([
  [1000, NEVER],
  [1001, [0.5, 5]],
  [1002, NEVER],
  [1003, NEVER],
  [1005, [0, 1]],
  [1006, [0, 1]],
  [1007, NEVER],
  [1008, NEVER],
  [1009, NEVER],
  [1011, [5, 30]],
  [1012, [0.5, 5]],
  [1013, [5, 30]],
]);
const UNKNOWN_CODE = [5, 30];

export class RelayClient {
  // options: WebSocket, where there is no global one (Node 20); hooks feed({state, brokers}),
  // away({delay, code, reason}), error(problem); pace stretches (or shortens) all delays.
  constructor(url, { WebSocket = globalThis.WebSocket, pace = 1, ...hooks } = {}) {
    if (!WebSocket) throw new TypeError("no WebSocket here: give one as the option WebSocket");
    this.url = url;
    this.WebSocket = WebSocket;
    this.pace = pace;
    this.hooks = hooks;
    this.closed = false;
    this.stopped = false;
    this.ready = false;
    this.tries = 0;
    this.followed = new Map();
  }

  // Follow a channel; returns a function that leaves it.
  subscribe(channel, hooks = {}) {
    if (this.closed) throw new Error("this client is closed");
    if (this.followed.has(channel)) throw new Error(`already subscribed to ${channel}`);
    const entry = { hooks, position: new Position(channel) };
    this.followed.set(channel, entry);
    if (!this.socket) this.open();
    else if (this.ready) this.send(entry.position.request());
    return () => this.leave(channel, entry);
  }

  leave(channel, entry) {
    if (this.followed.get(channel) !== entry) return;
    this.followed.delete(channel);
    if (this.ready) this.send(JSON.stringify({ type: "leave", channel }));
  }

  close() {
    this.closed = true;
    this.followed.clear();
    this.stop();
  }

  stop() {
    this.stopped = true;
    this.ready = false;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  // Stop, because trying again makes no sense.
  fail(problem) {
    this.stop();
    this.hooks.error?.(problem);
  }

  send(text) {
    if (this.socket.readyState === 1) this.socket.send(text);
  }

  open() {
    let socket;
    try {
      socket = new this.WebSocket(this.url, [SUBPROTOCOL]);
    } catch (problem) {
      this.fail(String(problem.message ?? problem));
      return;
    }
    this.socket = socket;
    let opened = false;
    let over = false;
    const ended = ({ code, reason }) => {
      if (over) return;
      over = true;
      clearTimeout(patience);
      if (this.stopped) return;
      this.ready = false;
      if (socket.readyState < 2) socket.close();
      this.again(opened, code, reason);
    };
    // A handshake that nobody answers would hang for as long as the system lets it.
    const patience = setTimeout(() => ended({ code: 1006, reason: "no answer in time" }), OPEN_S * 1000);
    socket.onopen = () => {
      clearTimeout(patience);
      if (this.stopped || over) return;
      if (socket.protocol !== SUBPROTOCOL) {
        this.fail(`the relay does not speak ${SUBPROTOCOL}`);
        return;
      }
      opened = true;
      this.ready = true;
      this.tries = 0;
      for (const { position } of this.followed.values()) {
        position.disconnected();
        this.send(position.request());
      }
    };
    socket.onmessage = (event) => {
      if (!this.stopped && !over) this.take(JSON.parse(event.data));
    };
    socket.onclose = ended;
    // Node 20 reports a failed handshake by an error alone.
    socket.onerror = () => {
      if (!opened) setTimeout(() => ended({ code: 1006, reason: "no connection" }), 50);
    };
  }

  again(opened, code, reason) {
    let delays;
    if (opened) {
      delays = COME_BACK.has(code) ? COME_BACK.get(code) : UNKNOWN_CODE;
      if (delays === NEVER) {
        this.fail(reason || `closed with ${code}`);
        return;
      }
    } else {
      const limit = Math.min(RETRY_S[0] * 2 ** this.tries, RETRY_S[1]);
      delays = [limit / 2, limit];
      this.tries += 1;
    }
    const [low, high] = delays;
    const delay = (low + Math.random() * (high - low)) * this.pace;
    this.hooks.away?.({ delay, code, reason });
    this.timer = setTimeout(() => this.open(), delay * 1000);
  }

  take(message) {
    if (message.channel === undefined) {
      if (message.type === "feed") this.hooks.feed?.(message);
      else if (message.type === "error") this.hooks.error?.(message.message);
      return;
    }
    const entry = this.followed.get(message.channel);
    if (entry === undefined) return;
    for (const [kind, ...told] of entry.position.take(message)) {
      if (this.followed.get(message.channel) !== entry) return;
      if (kind === "end" || kind === "refused") this.followed.delete(message.channel);
      entry.hooks[kind]?.(...told);
    }
  }
}
