// Follows channels with the ES module client and prints each event as a line of JSON.
// usage: node --experimental-websocket follow.mjs URL OPTIONS CHANNEL...
import { RelayClient } from "../../monitor/web/static/relay-client.js";

const [url, options, ...channels] = process.argv.slice(2);
const say = (...event) => process.stdout.write(`${JSON.stringify(event)}\n`);
let left = channels.length;
const relay = new RelayClient(url, {
  ...JSON.parse(options),
  WebSocket: globalThis.WebSocket,
  feed: (told) => say("feed", told),
  away: (told) => say("away", told),
  error: (problem) => say("error", problem),
});
for (const channel of channels) {
  relay.subscribe(channel, {
    message: (data, at) => say("message", channel, data, at),
    reset: (told) => say("reset", channel, told),
    gap: (told) => say("gap", channel, told),
    end: (told) => {
      say("end", channel, told);
      left -= 1;
      if (!left) relay.close();
    },
  });
}
