// The account of a client over a line that is cut at any byte: it is given each message once, in order, or is told
// of what is missing. By each of the WebSockets that Node has.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as undici from "undici";
import { WebSocket as ws } from "ws";
import { Socket } from "../wsroom.js";
import { Account } from "./account.js";
import { line, serve } from "./server.js";

const implementations = { ws, undici: undici.WebSocket, global: globalThis.WebSocket };
const some = (n) => Math.floor(Math.random() * n);
const turn = () => new Promise((done) => setImmediate(done));

for (const [name, WebSocket] of Object.entries(implementations)) {
  const options = { skip: !WebSocket && "this Node has no WebSocket", timeout: 60_000 };
  test(`${name}: nothing is lost or doubled`, options, (t) => {
    return account(t, WebSocket, { keep: 1e6, cuts: 60, most: 20_000, ahead: () => 300 });
  });
  test(`${name}: with a short history and a full queue, what is lost is told`, options, (t) => {
    return account(t, WebSocket, { keep: 8, cuts: 25, most: 5_000, ahead: () => some(40), lossy: true });
  });
}

// account sends to three rooms until so many connections were cut, and all there is has happened. Then it checks what
// the client has got.
async function account(t, WebSocket, { keep, cuts, most, ahead, lossy }) {
  const server = await serve(["a", "b", "c"], keep);
  t.after(server.close);
  const wire = await line(server.port, most);
  t.after(wire.close);

  const client = new Account();
  const faults = [];
  let direct = 0;
  const socket = new Socket(`ws://127.0.0.1:${wire.port}`, {
    WebSocket,
    timeout: 1_000, // undici may hear nothing of a handshake that was cut
    minDelay: 2,
    maxDelay: 10,
    ...client.handlers((n) => {
      if (n <= direct) faults.push(`direct ${n} after ${direct}`);
      direct = n;
    }),
  });
  t.after(() => socket.close());
  socket.open();

  const published = { a: 0, b: 0, c: 0 };
  const rooms = Object.keys(published);
  const excluded = new Set();
  let directs = 0, acks = 0;
  const publish = (room, except) => {
    const number = ++published[room];
    if (except) excluded.add(`${room} ${number}`);
    const text = `${room} ${number} ${"x".repeat(some(10) ? 0 : some(300))}`;
    server.rooms.get(room).publish(some(5) ? text : Buffer.from(text), except);
  };
  const enough = () => {
    const { resumed, resets, gaps } = client;
    const all = direct > 0 && acks > 0 && excluded.size > 0 && resumed > 5;
    return wire.cuts >= cuts && all && (!lossy || (gaps > 0 && resets > 3));
  };
  while (!enough()) {
    await turn();
    // With two connections, one is over, and the server doesn't know.
    const [only] = server.conns;
    const conn = server.conns.size === 1 && only.settled ? only : undefined;
    const behind = Math.max(...rooms.map((room) => published[room] - (client.at.get(room) ?? 0)));
    if (behind > ahead() || (lossy && !conn && some(50))) continue; // such a line carries only so much
    for (let n = some(some(20) ? 8 : 60); n > 0; n--) publish(rooms[some(3)], some(6) === 0 ? conn : undefined);
    if (!conn) continue;
    if (some(3) === 0) {
      const asked = ++directs;
      conn.direct(`direct ${asked}`);
      conn.ask(() => (acks++, direct >= asked || faults.push("an ack before its message was handled")));
    }
    if (lossy && some(20) === 0) conn.lose(server.rooms.get(rooms[some(3)]));
  }

  wire.mended = true;
  for (const room of rooms) publish(room);
  const done = () => rooms.every((room) => client.at.get(room) === published[room]);
  for (let i = 0; i < 5_000 && !done(); i++) await new Promise((later) => setTimeout(later, 2));
  assert.deepEqual([...client.faults(excluded), ...faults], []);
  assert.ok(done(), `it is at ${JSON.stringify([...client.at])}, of ${JSON.stringify(published)}`);
  const { messages, resumed, resets, gaps } = client;
  const entries = `${resumed} rooms resumed, ${resets} not`;
  const told = `${wire.cuts} cuts, ${messages} messages, ${entries}, ${gaps} gaps, ${acks} acks`;
  t.diagnostic(told);
  if (!lossy) assert.ok(gaps === 0 && resets >= 3 && resets <= 9, entries); // cut before its position begins, a room begins anew
}
