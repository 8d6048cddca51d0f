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
  const skip = !WebSocket && "this Node has no WebSocket";
  test(`${name}: nothing is lost or doubled`, { skip, timeout: 60_000 }, (t) => account(t, WebSocket, { keep: 1e6, cuts: 60 }));
  test(`${name}: with a short history and a full queue, what is lost is told`, { skip, timeout: 60_000 }, (t) => account(t, WebSocket, { keep: 8, cuts: 25, lossy: true }));
}

async function account(t, WebSocket, { keep, cuts, lossy }) {
  const server = await serve(["a", "b", "c"], keep);
  t.after(server.close);
  const wire = await line(server.port, lossy ? 5_000 : 20_000);
  t.after(wire.close);
  const client = new Account();
  const base = new Map([...server.rooms].map(([room, { last }]) => [room, last]));
  let direct = 0;
  const socket = new Socket(`ws://127.0.0.1:${wire.port}`, {
    WebSocket,
    timeout: 1_000, // undici may hear nothing of a handshake that was cut
    minDelay: 2,
    maxDelay: 10,
    buffer: 10,
    onmessage(data, room) {
      const text = typeof data === "string" ? data : new TextDecoder().decode(data);
      const [kind, ...rest] = text.split(" ");
      if (room !== undefined) client.message(room, text);
      else if (kind === "snapshot") client.snapshot(rest[0], Number(rest[1]) - base.get(rest[0]));
      else if (Number(rest[0]) <= direct) client.faults.push(`${text} after ${direct}`);
      else direct = Number(rest[0]);
    },
    onroom: (...args) => client.onroom(...args),
    ongap: (...args) => client.ongap(...args),
  });
  t.after(() => socket.close());
  socket.open();

  const published = { a: 0, b: 0, c: 0 };
  let directs = 0, acks = 0;
  const publish = (room, except) => {
    const number = ++published[room];
    if (except) client.excluded.add(`${room} ${number}`);
    const text = `${room} ${number}${" ".repeat(some(10) ? 0 : some(300))}`;
    server.rooms.get(room).publish(some(5) ? text : Buffer.from(text), except);
  };
  while (wire.cuts < cuts) {
    await turn();
    let [conn] = server.conns; // two of them are the client's: one is over, and the server doesn't know
    if (server.conns.size > 1 || !conn?.settled) conn = undefined;
    const behind = Math.max(...Object.keys(published).map((room) => published[room] - (client.at.get(room) ?? 0)));
    if (behind > (lossy ? some(40) : 300) || (lossy && !conn && some(50))) continue; // a line that is cut all the time carries only so much
    for (let n = some(some(20) ? 8 : 60); n > 0; n--) publish("abc"[some(3)], some(6) === 0 ? conn : undefined);
    if (!conn) continue;
    if (some(3) === 0) conn.direct(`direct ${++directs}`);
    if (some(5) === 0) {
      const asked = ++directs;
      conn.direct(`direct ${asked}`);
      conn.ask(() => (acks++, direct >= asked || client.faults.push("an ack before its message was handled")));
    }
    if (lossy && some(20) === 0) conn.lose(server.rooms.get("abc"[some(3)]));
  }
  wire.mended = true;
  const done = () => Object.keys(published).every((room) => client.at.get(room) === published[room]);
  for (const room of "abc") publish(room);
  for (let i = 0; i < 5_000 && !done(); i++) await new Promise((later) => setTimeout(later, 2));

  assert.deepEqual(client.faults, []);
  assert.ok(done(), `it is at ${JSON.stringify([...client.at])}, of ${JSON.stringify(published)}`);
  assert.ok(direct > 0 && acks > 0 && client.excluded.size > 0 && client.resumed > 5, `${direct}, ${acks}, ${client.resumed}`);
  if (lossy) assert.ok(client.gaps > 0 && client.resets > 3, `${client.gaps} gaps, ${client.resets} resets`);
  else assert.deepEqual([client.gaps, client.resets], [0, 3]);
  t.diagnostic(`${wire.cuts} cuts, ${client.messages} messages, ${client.resumed} rooms resumed, ${client.resets} not, ${client.gaps} gaps, ${acks} acks`);
}
