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
// Speaks recodex.monitor.v2, all channels on one connection; where the relay does not offer it,
// the old protocol with a connection for each channel. No dependencies, no build step.

import { LegacyPosition, Position } from "./relay-position.js";

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

function between([low, high]) {
  return low + Math.random() * (high - low);
}

// One WebSocket after the other, until closed for good.
class Link {
  constructor(owner, protocols, hooks) {
    this.owner = owner;
    this.protocols = protocols;
    this.hooks = hooks;
    this.tries = 0;
    this.done = false;
    this.open();
  }

  open() {
    let opened = false;
    let socket;
    try {
      socket = this.owner.socket(this.protocols);
    } catch (problem) {
      this.stop();
      this.owner.failed(String(problem.message ?? problem));
      return;
    }
    this.socket = socket;
    // A handshake that nobody answers would hang for as long as the system lets it.
    const patience = setTimeout(() => ended({ code: 1006, reason: "no answer in time" }), OPEN_S * 1000);
    let over = false;
    const ended = ({ code, reason }) => {
      if (over) return;
      over = true;
      clearTimeout(patience);
      if (this.done || this.socket !== socket) return;
      if (socket.readyState < 2) socket.close();
      this.hooks.close?.(code);
      if (this.done) return;
      if (opened || !this.hooks.refused) this.again(opened, code, reason);
      else this.hooks.refused(() => this.again(opened, code, reason));
    };
    socket.onopen = () => {
      clearTimeout(patience);
      if (this.done || over) return;
      opened = true;
      this.tries = 0;
      this.hooks.open(socket.protocol);
    };
    socket.onmessage = (event) => {
      if (!this.done && !over) this.hooks.message(event.data);
    };
    socket.onclose = ended;
    // Node 20 tells of a failed handshake by an error alone.
    socket.onerror = () => {
      if (!opened) setTimeout(() => ended({ code: 1006, reason: "no connection" }), 50);
    };
  }

  again(opened, code, reason) {
    let delays;
    if (opened) {
      delays = COME_BACK.has(code) ? COME_BACK.get(code) : UNKNOWN_CODE;
      if (delays === NEVER) {
        this.stop();
        this.owner.failed(reason || `closed with ${code}`);
        return;
      }
    } else {
      const limit = Math.min(RETRY_S[0] * 2 ** this.tries, RETRY_S[1]);
      delays = [limit / 2, limit];
      this.tries += 1;
    }
    const delay = between(delays) * this.owner.pace;
    this.owner.hooks.away?.({ delay, code, reason });
    this.timer = setTimeout(() => this.open(), delay * 1000);
  }

  send(text) {
    if (this.socket.readyState === 1) this.socket.send(text);
  }

  stop() {
    this.done = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}

export class RelayClient {
  // options: WebSocket, where there is no global one (Node 20); hooks feed({state, brokers}),
  // away({delay, code, reason}), error(problem); legacy: true speaks only the old protocol;
  // pace stretches (or shortens) all delays.
  constructor(url, { WebSocket = globalThis.WebSocket, legacy = false, pace = 1, ...hooks } = {}) {
    if (!WebSocket) throw new TypeError("no WebSocket here: give one as the option WebSocket");
    this.url = url;
    this.WebSocket = WebSocket;
    this.legacy = legacy;
    this.pace = pace;
    this.hooks = hooks;
    this.closed = false;
    // Whether the relay ever spoke the recovering protocol, and whether it takes plain connections.
    this.spoken = false;
    this.plain = false;
    this.followed = new Map();
  }

  // Follow a channel; returns a function that leaves it.
  subscribe(channel, hooks = {}) {
    if (this.closed) throw new Error("this client is closed");
    if (this.followed.has(channel)) throw new Error(`already subscribed to ${channel}`);
    const entry = { hooks, position: new Position(channel), link: null };
    this.followed.set(channel, entry);
    if (this.legacy) this.followLegacy(entry);
    else if (!this.link) this.connect();
    else if (this.ready) this.link.send(entry.position.request());
    return () => this.leave(channel, entry);
  }

  socket(protocols) {
    const { WebSocket, url } = this;
    return protocols.length ? new WebSocket(url, protocols) : new WebSocket(url);
  }

  close() {
    this.closed = true;
    this.followed.clear();
    this.link?.stop();
    for (const link of this.legacyLinks ?? []) link.stop();
  }

  leave(channel, entry) {
    if (this.followed.get(channel) !== entry) return;
    this.followed.delete(channel);
    if (entry.link) this.drop(entry);
    else if (this.ready) this.link.send(JSON.stringify({ type: "leave", channel }));
  }

  connect() {
    this.ready = false;
    this.link = new Link(this, [SUBPROTOCOL], {
      open: (protocol) => {
        if (protocol !== SUBPROTOCOL) {
          this.fallBack();
          return;
        }
        this.ready = true;
        this.spoken = true;
        for (const { position } of this.followed.values()) {
          position.disconnected();
          this.link.send(position.request());
        }
      },
      message: (text) => this.take(JSON.parse(text)),
      close: () => {
        this.ready = false;
      },
      refused: (again) => this.suspect(again),
    });
  }

  // A handshake failed. A browser fails it too where the relay answers without a subprotocol, and
  // does not say which it was: a relay that takes a plain connection at once, and then fails
  // ours again, has only the old protocol.
  suspect(again) {
    if (this.spoken) {
      again();
      return;
    }
    if (this.plain) {
      this.fallBack();
      return;
    }
    const probe = this.socket([]);
    const patience = setTimeout(() => judge(false), OPEN_S * 1000);
    let judged = false;
    const judge = (plain) => {
      if (judged) return;
      judged = true;
      clearTimeout(patience);
      probe.close();
      if (this.closed || this.legacy) return;
      this.plain = plain;
      if (plain) this.link.open();
      else again();
    };
    probe.onopen = () => judge(true);
    probe.onclose = probe.onerror = () => judge(false);
  }

  take(message) {
    if (message.channel === undefined) {
      if (message.type === "feed") this.hooks.feed?.(message);
      else if (message.type === "error") this.failed(message.message);
      return;
    }
    const entry = this.followed.get(message.channel);
    if (entry) this.tell(entry, entry.position.take(message));
  }

  tell(entry, events) {
    for (const [kind, ...told] of events) {
      if (this.followed.get(entry.position.channel) !== entry) return;
      if (kind === "end" || kind === "refused") {
        this.followed.delete(entry.position.channel);
        this.drop(entry);
      }
      entry.hooks[kind]?.(...told);
    }
  }

  failed(problem) {
    this.hooks.error?.(problem);
  }

  fallBack() {
    this.legacy = true;
    this.link.stop();
    this.link = null;
    for (const entry of this.followed.values()) this.followLegacy(entry);
  }

  followLegacy(entry) {
    const { channel } = entry.position;
    const position = new LegacyPosition(channel);
    entry.link = new Link(this, [], {
      open: () => {
        position.connected();
        entry.link.send(channel);
      },
      message: (text) => this.tell(entry, position.take(text)),
      close: (code) => this.tell(entry, position.closed(code)),
    });
    this.legacyLinks ??= new Set();
    this.legacyLinks.add(entry.link);
  }

  drop(entry) {
    if (!entry.link) return;
    entry.link.stop();
    this.legacyLinks.delete(entry.link);
  }
}
