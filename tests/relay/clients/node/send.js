// A broker with zeromq.js: sends each line of the standard input as a message.
// usage: node send.js URI IDENTITY
import { createInterface } from "node:readline";
import { Dealer } from "zeromq";

const [uri, identity] = process.argv.slice(2);
const socket = new Dealer({ linger: 10_000, ...(identity ? { routingId: identity } : {}) });
socket.connect(uri);
for await (const line of createInterface({ input: process.stdin })) {
  await socket.send(line.split("\t"));
}
socket.close();
