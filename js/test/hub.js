// The account of a client of a hub: node hub.js PORT IMPLEMENTATION CUTS MOST. The line is cut after up to MOST
// bytes, CUTS times. At /said the server takes down where the client is; at /end it sends to each room once more, and
// tells how many messages each room had, which weren't for this client, and of which that isn't sure.

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
let before; // the holders of the positions when the connection opened
const socket = new Socket(`ws://127.0.0.1:${wire.port}/live/a`, {
  WebSocket,
  timeout: 2_000, // undici may hear nothing of a handshake that was cut
  minDelay: 2,
  maxDelay: 10,
  ...client.handlers((n) => {
    if (n <= direct) faults.push(`direct ${n} after ${direct}`);
    direct = n;
  }),
  onstate(state) {
    if (state === "open") before = holders();
  },
});

// holders are the connections that the positions' tokens were given to.
function holders() {
  const tokens = JSON.parse(socket.cursor).map(({ token }) => Buffer.from(token, "base64url"));
  return tokens.map((token) => token.subarray(27, 35).toString("hex"));
}

// caughtUp tells whether all positions are this connection's. What a client sends to all but itself before that comes
// back to it, should it be cut once more.
function caughtUp() {
  const now = holders();
  return now.length === 3 && now.every((holder) => holder === now[0] && !before.includes(holder));
}

socket.open();

while (wire.cuts < cuts) {
  // Some messages of the rooms are our own, and for all but us.
  if (caughtUp()) socket.send(`say ${["a", "b", "c"][Math.floor(Math.random() * 3)]}`);
  await ask("/said", JSON.stringify(Object.fromEntries(client.at)));
}
wire.mended = true;
const { sent, excluded, either } = await ask("/end");
const done = () => Object.keys(sent).every((room) => client.at.get(room) === sent[room]);
for (let i = 0; i < 5_000 && !done(); i++) await sleep(2);
if (!done()) faults.push(`it is at ${JSON.stringify([...client.at])}, of ${JSON.stringify(sent)}`);
faults.push(...client.faults(new Set(excluded), new Set(either)));

const { messages, resumed, resets, gaps } = client;
const counts = { cuts: wire.cuts, messages, resumed, resets, gaps, direct, excluded: excluded.length };
console.log(JSON.stringify({ faults: faults.slice(0, 20), ...counts }));
socket.close();
wire.close();
