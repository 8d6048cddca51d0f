// The client of graphql-ws, and what it never says, against the servers of NODES.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";

const nodes = process.env.NODES.split(",");
const protocol = "graphql-transport-ws";
const clients = [];
const sockets = [];
after(() => {
  for (const socket of sockets) socket.terminate();
  return Promise.all(clients.map((client) => client.dispose()));
});

function connect(node, room, name, options = {}) {
  const client = createClient({
    url: `${nodes[node]}/graphql/${room}`,
    webSocketImpl: WebSocket,
    connectionParams: { name },
    retryAttempts: 0,
    lazy: false,
    onNonLazyError: () => {},
    ...options,
  });
  clients.push(client);
  return client;
}

// ask resolves with the only result of a query or mutation.
const ask = async (client, query, variables) => {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  assert.equal(results.length, 1);
  return results[0];
};

// hear subscribes, and resolves with the subscription once the server has it: a query that comes later has been answered.
async function hear(client, query) {
  const heard = client.iterate({ query });
  const first = heard.next();
  await ask(client, "{ people }");
  let begun = false;
  return { next: () => (begun ? heard.next() : ((begun = true), first)).then(({ value }) => value), end: () => heard.return() };
}

const say = (client, text) => ask(client, "mutation ($text: String!) { say(text: $text) { text } }", { text });

test("each subscription gets what it has selected, in the room's order, on both nodes", { timeout: 30_000 }, async () => {
  const [ada, bob, eve] = [connect(0, "a", "Ada"), connect(1, "a", "Bob"), connect(1, "b", "Eve")];
  const here = await hear(ada, "subscription { said { name text } }");
  const there = await hear(bob, "subscription S { what: said { text } }");
  const elsewhere = await hear(eve, "subscription { said { text } }");
  for (let i = 0; i < 20; i++) {
    const [client, name] = i % 3 ? [ada, "Ada"] : [bob, "Bob"];
    assert.deepEqual(await say(client, ` ${i} `), { data: { say: { text: `${i}` } } });
    assert.deepEqual(await here.next(), { data: { said: { name, text: `${i}` } } });
    assert.deepEqual(await there.next(), { data: { what: { text: `${i}` } } });
  }
  await say(eve, "elsewhere");
  assert.deepEqual(await elsewhere.next(), { data: { said: { text: "elsewhere" } } });
  assert.deepEqual(await ask(ada, "{ people }"), { data: { people: ["Ada"] } }); // of this node
});

test("a subscription that is completed gets nothing more, another one does", { timeout: 30_000 }, async () => {
  const ada = connect(0, "c", "Ada");
  const first = await hear(ada, "subscription { said { text } }");
  const second = await hear(ada, "subscription { said { text } }");
  await say(ada, "both");
  assert.equal((await first.next()).data.said.text, "both");
  await first.end();
  const more = Array.from({ length: 80 }, (_, i) => `${i}`); // more than wait for a subscription
  for (const text of more) await say(ada, text);
  for (const text of ["both", ...more]) assert.equal((await second.next()).data.said.text, text);
  assert.equal(await first.next(), undefined);
});

test("errors are the operation's", { timeout: 30_000 }, async () => {
  const ada = connect(0, "d", "Ada");
  await assert.rejects(ask(ada, "{ nothing }"), ([{ message }]) => /nothing/.test(message));
  await assert.rejects(ask(ada, "{"), ([{ message }]) => /syntax/.test(message));
  await assert.rejects(ask(ada, "subscription { said { text } "), ([{ message }]) => /syntax/.test(message));
  const { errors } = await say(ada, "");
  assert.match(errors[0].message, /1 to 500 characters/);
  assert.deepEqual(await ask(ada, "{ people }"), { data: { people: ["Ada"] } });
});

test("pings are answered, in both directions", { timeout: 30_000 }, async () => {
  const pongs = [];
  const ada = connect(0, "e", "Ada", { keepAlive: 20, on: { pong: (received) => pongs.push(received) } });
  while (pongs.length < 3) {
    await new Promise((resolve) => ada.on("pong", resolve));
  }
  assert.deepEqual(pongs.slice(0, 3), [true, true, true]);
});

test("who has no name is refused", { timeout: 30_000 }, async () => {
  for (const connectionParams of [undefined, {}, { name: "" }, { name: 7 }, { name: "x".repeat(25) }, { name: "a\u0000b" }]) {
    const client = connect(0, "f", "", { connectionParams, lazy: true });
    await assert.rejects(ask(client, "{ people }"), ({ code, reason }) => code === 4403 && reason === "Forbidden");
  }
});

// ---- what the client never does

// raw sends what it is given, and resolves with the close code, or with messages until one is of that type.
async function raw(messages, { until, protocols = [protocol] } = {}) {
  const ws = new WebSocket(`${nodes[0]}/graphql/raw`, protocols);
  sockets.push(ws);
  const got = [];
  const closed = once(ws, "close");
  const over = new Promise((resolve) => ws.on("message", (data) => {
    got.push(JSON.parse(data));
    if (got.at(-1).type === until) resolve();
  }));
  await once(ws, "open");
  for (const m of messages) ws.send(typeof m === "string" || Buffer.isBuffer(m) ? m : JSON.stringify(m));
  if (until) {
    await over;
    ws.close();
    return got;
  }
  const [code, reason] = await closed;
  return [code, String(reason)];
}

const init = { type: "connection_init", payload: { name: "Raw" } };
const subscribe = { id: "1", type: "subscribe", payload: { query: "subscription { said { text } }" } };

for (const [what, messages, code, reason, options] of [
  ["no connection_init", [], 4408, "Connection initialisation timeout"],
  ["a second connection_init", [init, init], 4429, "Too many initialisation requests"],
  ["a subscription before connection_init", [subscribe], 4401, "Unauthorized"],
  ["an ID that is in use", [init, subscribe, subscribe], 4409, "Subscriber for 1 already exists"],
  ["no JSON", [init, "{"], 4400, "Invalid message"],
  ["another JSON", [init, "[]"], 4400, "Invalid message"],
  ["an unknown type", [init, { type: "start" }], 4400, "Invalid message"],
  ["no type", [init, {}], 4400, "Invalid message"],
  ["no ID", [init, { ...subscribe, id: undefined }], 4400, "Invalid message"],
  ["no query", [init, { id: "1", type: "subscribe", payload: {} }], 4400, "Invalid message"],
  ["no payload", [init, { id: "1", type: "subscribe" }], 4400, "Invalid message"],
  ["a binary message", [init, Buffer.from("{}")], 1003, undefined],
  ["no subprotocol", [init], 4406, "Subprotocol not acceptable", { protocols: [] }],
]) {
  test(`${what} ends with ${code}`, { timeout: 30_000 }, async () => {
    const [gotCode, gotReason] = await raw(messages, options);
    assert.equal(gotCode, code);
    if (reason) assert.equal(gotReason, reason);
  });
}

test("an ID is free again once it is completed, by whom ever", { timeout: 30_000 }, async () => {
  const query = { id: "1", type: "subscribe", payload: { query: "{ people }" } };
  const got = await raw([init, subscribe, { id: "1", type: "complete" }, query], { until: "complete" });
  assert.deepEqual(got.map(({ type }) => type), ["connection_ack", "next", "complete"]);
});

test("a ping is answered before connection_init, and a pong isn't", { timeout: 30_000 }, async () => {
  assert.deepEqual(await raw([{ type: "pong" }, { type: "ping", payload: { a: 1 } }], { until: "pong" }), [{ type: "pong" }]);
});

test("a connection has up to 64 operations", { timeout: 30_000 }, async () => {
  const many = Array.from({ length: 65 }, (_, i) => ({ ...subscribe, id: String(i) }));
  const [, error] = await raw([init, ...many], { until: "error" });
  assert.equal(error.id, "64");
  assert.match(error.payload[0].message, /too many/);
});
