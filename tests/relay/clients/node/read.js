// Reads a channel with ws and prints each message as a line.
// usage: node read.js URL PROTOCOL REQUEST
import WebSocket from "ws";

const [url, protocol, request] = process.argv.slice(2);
const socket = protocol ? new WebSocket(url, protocol) : new WebSocket(url);
socket.on("open", () => socket.send(request));
socket.on("message", (data) => {
  console.log(String(data));
  if (JSON.parse(data).type === "finished") socket.close();
});
