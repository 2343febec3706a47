// How far a client is in a channel: messages in, events out; no I/O.
//
// An event is a list: the name of the hook, and its argument.

export class Position {
  constructor(channel) {
    this.channel = channel;
    this.epoch = undefined;
    this.seq = 0;
    // Subscriptions asked for but not answered: messages before the last answer are stale.
    this.asked = 0;
    this.gaps = new Set();
  }

  disconnected() {
    this.asked = 0;
  }

  request() {
    this.asked += 1;
    const request = { type: "subscribe", channel: this.channel };
    if (this.epoch !== undefined) request.after = { epoch: this.epoch, seq: this.seq };
    return JSON.stringify(request);
  }

  *take(message) {
    const { type, seq } = message;
    if (type === "error") {
      this.asked = Math.max(0, this.asked - 1);
      yield ["refused", message];
    } else if (type === "subscribed") {
      this.asked = Math.max(0, this.asked - 1);
      if (!this.asked) yield* this.subscribed(message);
    } else if (this.asked) {
      return;
    } else if (type === "message") {
      yield* this.message(message.epoch, seq, message.time, message.data);
    } else if (type === "messages") {
      for (const [index, data] of message.data.entries()) {
        // In whole milliseconds: the sum of two fractions has more digits than either.
        const time = Math.round(message.time * 1000 + message.ms[index]) / 1000;
        yield* this.message(message.epoch, seq + index, time, data);
      }
    } else if (type === "feed") {
      const gap = `${seq} ${message.since}`;
      if (this.gaps.has(gap)) return;
      this.gaps.add(gap);
      yield ["gap", { seq, since: message.since, until: message.until }];
    } else if (type === "finished" || type === "failed") {
      yield ["end", { finished: type === "finished", reason: message.reason ?? "" }];
    }
  }

  *message(epoch, seq, time, data) {
    if (epoch !== this.epoch || seq <= this.seq) return;
    // A relay never skips a number; but if it does, the listener must know.
    if (seq > this.seq + 1) yield ["reset", { seq: seq - 1, epoch, anew: false }];
    this.seq = seq;
    yield ["message", data, { seq, epoch, time }];
  }

  *subscribed({ epoch, seq, recovered }) {
    const known = this.epoch !== undefined;
    const exact = recovered === true && seq === this.seq;
    const anew = known && !exact && (epoch !== this.epoch || seq <= this.seq);
    this.epoch = epoch;
    this.seq = seq;
    if (anew) this.gaps.clear();
    if (known ? !exact : seq > 0) yield ["reset", { seq, epoch, anew }];
  }
}
