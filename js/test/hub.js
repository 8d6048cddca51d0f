// The account of a client of a hub: node hub.js PORT IMPLEMENTATION CUTS MOST. The line is cut after up to MOST
// bytes, CUTS times. At /said the server takes down where the client is; at /end it sends to each room once more, and
// tells how many messages each room had, and which weren't for this client.

import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket as ws } from "ws";
import * as undici from "undici";
import { Socket } from "../wsroom.js";
import { Account } from "./account.js";
import { line } from "./server.js";

const [port, name, cuts, most] = process.argv.slice(2);
const WebSocket = { ws, undici: undici.WebSocket, global: globalThis.WebSocket }[name];
const ask = async (path, body) => (await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body })).json();

const wire = await line(port, Number(most));
const client = new Account();
const faults = [];
let direct = 0;
const socket = new Socket(`ws://127.0.0.1:${wire.port}/live/a`, {
  WebSocket,
  timeout: 2_000, // undici may hear nothing of a handshake that was cut
  minDelay: 2,
  maxDelay: 10,
  ...client.handlers((n) => {
    if (n <= direct) faults.push(`direct ${n} after ${direct}`);
    direct = n;
  }),
});
socket.open();

while (wire.cuts < cuts) {
  // Some messages of the rooms are our own, and for all but us.
  if (socket.resumable) socket.send(`say ${["a", "b", "c"][Math.floor(Math.random() * 3)]}`);
  await ask("/said", JSON.stringify(Object.fromEntries(client.at)));
}
wire.mended = true;
const { sent, excluded } = await ask("/end");
const done = () => Object.keys(sent).every((room) => client.at.get(room) === sent[room]);
for (let i = 0; i < 5_000 && !done(); i++) await sleep(2);
if (!done()) faults.push(`it is at ${JSON.stringify([...client.at])}, of ${JSON.stringify(sent)}`);
faults.push(...client.faults(new Set(excluded)));

const { messages, resumed, resets, gaps } = client;
const counts = { cuts: wire.cuts, messages, resumed, resets, gaps, direct, excluded: excluded.length };
console.log(JSON.stringify({ faults: faults.slice(0, 20), ...counts }));
socket.close();
wire.close();
