// Requests, replies and questions over a WebSocket that a test plays the server of.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { RequestError, RequestSocket } from "../request.js";
import { clock, FakeWebSocket, settled } from "./fake.js";

// start opens a socket to a plain server; sent are the messages that the server has got, since it was asked last.
async function start(t, options) {
  const tick = clock(t);
  const seen = [];
  const socket = new RequestSocket("ws://server/live", {
    WebSocket: FakeWebSocket,
    resume: false,
    onmessage: (...args) => seen.push(args),
    onother: (...args) => seen.push(["other", ...args]),
    onstate: (state) => seen.push(["state", state]),
    ...options,
  });
  const come = async () => {
    socket.open();
    await tick();
    FakeWebSocket.last.opens("");
    seen.length = 0;
    return FakeWebSocket.last;
  };
  const sent = () => FakeWebSocket.last.sent.splice(0).map((text) => JSON.parse(text));
  const request = (...args) => {
    const promise = socket.request(...args);
    promise.catch(() => {}); // the test looks at it later
    return promise;
  };
  t.after(() => socket.close());
  return { tick, seen, socket, come, sent, request };
}

// outcome is what has become of a promise by now.
async function outcome(promise) {
  await settled();
  return Promise.race([
    promise.then((data) => ({ data }), ({ name, code, message }) => ({ name, code, message })),
    settled().then(() => "pending"),
  ]);
}

const failed = (code, message = code) => ({ name: "RequestError", code, message });

test("each request gets its own reply, in whatever order they come", async (t) => {
  const { socket, request, come, sent } = await start(t);
  const ws = await come();
  const first = request("add", { a: 1 });
  const second = request("add");
  assert.deepEqual(sent(), [{ type: "add", id: 1, data: { a: 1 } }, { type: "add", id: 2 }]);
  ws.says({ id: 2, data: "two" });
  assert.deepEqual(await outcome(second), { data: "two" });
  assert.equal(await outcome(first), "pending");
  ws.says({ id: 2, data: "once more" }, { id: 1 }, { id: 77, data: "nobody's" });
  assert.deepEqual(await outcome(first), { data: undefined });
});

test("a reply that is an error rejects with its code and text", async (t) => {
  const { socket, request, come } = await start(t);
  const ws = await come();
  const cases = [
    [{ code: "full", message: "the room is full" }, failed("full", "the room is full")],
    [{ code: "full" }, failed("full")],
    ["in a word", failed("", "in a word")],
    [{}, failed("", "")],
  ];
  for (const [error, want] of cases) {
    const asked = request("x");
    ws.says({ id: JSON.parse(ws.sent.at(-1)).id, error });
    assert.deepEqual(await outcome(asked), want);
  }
  const asked = request("x");
  ws.says({ id: JSON.parse(ws.sent.at(-1)).id, error: null, data: 1 });
  assert.deepEqual(await outcome(asked), { data: 1 });
});

test("a request without a reply rejects in its time", async (t) => {
  const { socket, request, come, tick } = await start(t);
  const ws = await come();
  const short = request("x", null, { timeout: 500 });
  const usual = request("x");
  await tick(499);
  assert.equal(await outcome(short), "pending");
  await tick(1);
  assert.deepEqual(await outcome(short), failed("timeout"));
  ws.says({ id: 1, data: "late" });
  await tick(9_499);
  assert.equal(await outcome(usual), "pending");
  await tick(1);
  assert.deepEqual(await outcome(usual), failed("timeout"));
});

test("an end takes the requests along", async (t) => {
  const { socket, request, come, tick, seen } = await start(t);
  const ws = await come();
  const requests = [request("x"), request("x")];
  ws.ends();
  for (const asked of requests) assert.deepEqual(await outcome(asked), failed("closed"));
  assert.deepEqual(await outcome(request("x")), failed("closed"));
  assert.deepEqual(seen, [["state", "waiting"]]);
  await tick(40_000);
  FakeWebSocket.last.opens("");
  const mine = request("x");
  socket.close();
  assert.deepEqual(await outcome(mine), failed("closed"));
});

test("what is kept for the next connection isn't taken along by the attempts before", async (t) => {
  const { socket, request, come, tick, sent } = await start(t, { buffer: 1 });
  const asked = request("x", 1, { timeout: 100_000 });
  socket.open();
  await tick();
  FakeWebSocket.last.ends();
  await tick(40_000);
  assert.equal(await outcome(asked), "pending");
  FakeWebSocket.last.opens("");
  assert.deepEqual(sent(), [{ type: "x", id: 1, data: 1 }]);
  FakeWebSocket.last.says({ id: 1, data: 2 });
  assert.deepEqual(await outcome(asked), { data: 2 });
});

test("a request that is kept for a connection that never comes ends with the socket", async (t) => {
  for (const end of [(socket) => socket.close(), () => FakeWebSocket.last.ends(1000)]) {
    const { socket, request, tick } = await start(t, { buffer: 1 });
    socket.open();
    await tick();
    const asked = request("x");
    assert.equal(await outcome(asked), "pending");
    end(socket);
    assert.deepEqual(await outcome(asked), failed("closed"));
    mock.reset();
  }
});

test("a timeout may be longer than a timer can be", async (t) => {
  const { request, come, tick } = await start(t);
  const ws = await come();
  const asked = [Infinity, 2 ** 31].map((timeout) => request("x", null, { timeout }));
  await tick(1_000_000);
  for (const one of asked) assert.equal(await outcome(one), "pending");
  ws.says({ id: 1, data: "at last" });
  assert.deepEqual(await outcome(asked[0]), { data: "at last" });
});

test("messages go to the function of their type, or to onmessage; what has none to onother", async (t) => {
  const on = { typing: (...args) => seen.push(["on", ...args]) };
  const { come, seen } = await start(t, { on });
  const ws = await come();
  const binary = new ArrayBuffer(1);
  ws.says({ type: "typing", data: 1 }, { type: "said", data: 2 }, { type: "toString" }, "no JSON", binary, "null", "3", { type: 3 });
  assert.deepEqual(seen, [
    ["on", 1, undefined], ["said", 2, undefined], ["toString", undefined, undefined],
    ["other", "no JSON", undefined], ["other", binary, undefined], ["other", "null", undefined], ["other", "3", undefined],
    ["other", '{"type":3}', undefined],
  ]);
});

test("tell sends a message that wants no reply", async (t) => {
  const { socket, request, come, sent } = await start(t);
  assert.equal(socket.tell("x"), false);
  await come();
  assert.equal(socket.tell("typing", { a: 1 }), true);
  assert.deepEqual(sent(), [{ type: "typing", data: { a: 1 } }]);
});

test("questions are answered; of an error only a RequestError is told", async (t) => {
  const caught = [];
  t.mock.method(globalThis, "queueMicrotask", (f) => {
    try {
      f();
    } catch (error) {
      caught.push(error.message);
    }
  });
  const on = {
    double: async (n) => 2 * n,
    nothing: () => {},
    refuse: () => {
      throw new RequestError("busy", "later");
    },
    fail: () => {
      throw new Error("hunter2");
    },
  };
  const { come, sent } = await start(t, { on });
  const ws = await come();
  ws.says({ type: "double", id: 1, data: 4 }, { type: "nothing", id: 2 }, { type: "refuse", id: 3 }, { type: "fail", id: 4 });
  ws.says({ type: "other", id: 5 }, { type: "constructor", id: 6 });
  await settled();
  assert.deepEqual(sent().sort((a, b) => a.id - b.id), [
    { id: 1, data: 8 },
    { id: 2 },
    { id: 3, error: { code: "busy", message: "later" } },
    { id: 4, error: { code: "internal" } },
    { id: 5, error: { code: "unknown_type" } },
    { id: 6, error: { code: "unknown_type" } },
  ]);
  assert.deepEqual(caught, ["hunter2"]);
});

test("no answer goes to another connection than its question came by", async (t) => {
  let answer;
  const on = { slow: () => new Promise((resolve) => (answer = resolve)) };
  const { come, sent, tick, socket } = await start(t, { on, buffer: 10 });
  (await come()).says({ type: "slow", id: 1 });
  await settled();
  const first = answer;
  FakeWebSocket.last.ends();
  await tick(40_000);
  FakeWebSocket.last.opens("");
  first("late");
  await settled();
  assert.deepEqual(sent(), []);
  FakeWebSocket.last.says({ type: "slow", id: 1 });
  await settled();
  answer("in time");
  await settled();
  assert.deepEqual(sent(), [{ id: 1, data: "in time" }]);
  assert.equal(socket.state, "open");
});

test("the fields have the application's names", async (t) => {
  const fields = { type: "event", id: "ref", data: "payload", error: "err", code: "no", message: "text" };
  const on = {
    refuse: () => {
      throw new RequestError("busy", "later");
    },
  };
  const { socket, request, come, sent } = await start(t, { fields, on });
  const ws = await come();
  const requests = [request("add", 1), request("add", 2)];
  assert.deepEqual(sent(), [{ event: "add", ref: 1, payload: 1 }, { event: "add", ref: 2, payload: 2 }]);
  ws.says({ ref: 1, payload: 3 }, { ref: 2, err: { no: "full", text: "no room" } }, { event: "refuse", ref: 9 });
  assert.deepEqual(await outcome(requests[0]), { data: 3 });
  assert.deepEqual(await outcome(requests[1]), failed("full", "no room"));
  assert.deepEqual(sent(), [{ ref: 9, err: { no: "busy", text: "later" } }]);
});
