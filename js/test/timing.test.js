// When it connects, how long it waits, and when it gives up, by a clock that stands still.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Socket } from "../wsroom.js";
import { clock, FakeWebSocket, page } from "./fake.js";

function start(t, options, url = "ws://server") {
  const tick = clock(t);
  const states = [];
  const onstate = (state, why) => states.push(why ? [state, why] : state);
  const socket = new Socket(url, { WebSocket: FakeWebSocket, onstate, ...options });
  t.after(() => socket.close());
  const open = async (protocol) => {
    socket.open();
    await tick();
    FakeWebSocket.last.opens(protocol);
    return FakeWebSocket.last;
  };
  return { tick, states, socket, open };
}
const delayOf = ({ states }) => (assert.equal(states.at(-1)[0], "waiting"), states.at(-1)[1].delay);
const count = () => FakeWebSocket.all.length;

test("the waits grow, and are random over their whole length", async (t) => {
  const s = start(t);
  s.socket.open();
  for (const most of [1, 2, 4, 8, 16, 30, 30]) {
    await s.tick();
    FakeWebSocket.last.ends();
    assert.equal(delayOf(s), most * 500); // random is a half
    const n = count();
    await s.tick(most * 500 - 1);
    assert.equal(count(), n);
    await s.tick(1);
    assert.equal(count(), n + 1);
  }
  for (const [random, delay] of [[0, 0], [0.999, 29_970]]) {
    Math.random.mock.mockImplementation(() => random);
    FakeWebSocket.last.ends();
    assert.equal(delayOf(s), delay);
    await s.tick(delay);
  }
});

test("ten seconds open make the waits short again; less doesn't", async (t) => {
  const s = start(t);
  for (const [open, delay] of [[0, 500], [0, 1_000], [9_999, 2_000], [10_000, 500]]) {
    const ws = await s.open();
    await s.tick(open);
    ws.ends();
    assert.equal(delayOf(s), delay);
    await s.tick(delay);
  }
});

test("each close code has its floor", async (t) => {
  const floors = [[1001, 500], [1012, 500], [1008, 10_000], [1013, 5_000], [4408, 5_000], [4429, 5_000]];
  for (const [code, floor] of [[1005, 0], [1006, 0], [1011, 0], [3000, 0], [4500, 0], ...floors]) {
    await t.test(String(code), async (t) => {
      const s = start(t);
      const ws = await s.open();
      Math.random.mock.mockImplementation(() => 0);
      ws.ends(code, "because");
      assert.deepEqual(s.states.at(-1), ["waiting", { code, reason: "because", delay: floor, error: undefined }]);
      await s.tick(floor);
      FakeWebSocket.last.opens();
      Math.random.mock.mockImplementation(() => 1);
      FakeWebSocket.last.ends(code);
      assert.equal(delayOf(s), floor + Math.max(2_000, floor));
    });
  }
});

test("these codes are final", async (t) => {
  for (const code of [1000, 1002, 1003, 1007, 1009, 1010, 4400, 4401, 4403, 4499]) {
    await t.test(String(code), async (t) => {
      const s = start(t);
      (await s.open()).ends(code, "why");
      assert.deepEqual(s.states.at(-1), ["stopped", { code, reason: "why", error: undefined }]);
      await s.tick(3_600_000);
      assert.equal(count(), 1);
      await s.open(); // who wants to, may try again
      assert.equal(s.socket.state, "open");
    });
  }
});

test("docs/browsers.md says what follows each code", async (t) => {
  const page = readFileSync(new URL("../../docs/browsers.md", import.meta.url), "utf8");
  const rows = [...page.matchAll(/^\| ([\d, to]*\d{4}).*? \| (stops|comes back after) ?([\d.]*)/gm)];
  assert.equal(rows.length, 5);
  for (const [, codes, what, seconds] of rows) {
    for (const code of codes.match(/\d{4}/g)) {
      await t.test(`${code} ${what} ${seconds}`, async (t) => {
        const s = start(t);
        const ws = await s.open();
        Math.random.mock.mockImplementation(() => 0);
        ws.ends(Number(code));
        if (what === "stops") assert.equal(s.socket.state, "stopped");
        else assert.equal(delayOf(s), seconds * 1_000);
      });
    }
  }
});

test("policy has the first word", async (t) => {
  const asked = [];
  const s = start(t, { policy: (...args) => (asked.push(args), { 4403: 7_000, 1012: false }[args[0]]) });
  (await s.open()).ends(4403, "not yet");
  assert.equal(delayOf(s), 7_000 + 3_500);
  await s.tick(10_500);
  FakeWebSocket.last.opens();
  FakeWebSocket.last.ends(1006);
  assert.equal(delayOf(s), 1_000);
  await s.tick(1_000);
  FakeWebSocket.last.opens();
  FakeWebSocket.last.ends(1012);
  assert.equal(s.socket.state, "stopped");
  assert.deepEqual(asked, [[4403, "not yet", 0], [1006, "", 1], [1012, "", 2]]);
});

test("a policy that closes has closed", async (t) => {
  const s = start(t, { policy: () => s.socket.close() });
  (await s.open()).ends(1006);
  await s.tick(60_000);
  assert.deepEqual([s.socket.state, count()], ["idle", 1]);
});

test("4401 asks renew before the next attempt, and the waits go on growing", async (t) => {
  const order = [];
  const s = start(t, { renew: async () => order.push("renew") }, () => (order.push("url"), "ws://server"));
  s.socket.open();
  for (const delay of [500, 1_000, 2_000]) {
    await s.tick();
    FakeWebSocket.last.opens();
    FakeWebSocket.last.ends(4401);
    assert.equal(delayOf(s), delay);
    await s.tick(delay);
  }
  assert.deepEqual(order, ["url", "renew", "url", "renew", "url", "renew", "url"]);
  await s.tick();
  FakeWebSocket.last.ends(1006);
  await s.tick(4_000);
  assert.equal(order.filter((it) => it === "renew").length, 3); // for a 4401 only
});

test("a renew that throws is asked again; one that returns false ends it", async (t) => {
  const answers = [() => Promise.reject(new Error("offline")), () => { throw new Error("offline"); }, () => false];
  const s = start(t, { renew: () => answers.shift()() });
  (await s.open()).ends(4401, "expired");
  await s.tick(500);
  assert.deepEqual(s.states.at(-1)[1].error?.message, "offline");
  await s.tick(1_000);
  assert.equal(count(), 1);
  await s.tick(2_000);
  assert.deepEqual(s.states.at(-1), ["stopped", { code: 4401, reason: "expired", error: undefined }]);
  assert.equal(count(), 1);
});

test("an url that rejects, throws or never comes is asked for again", async (t) => {
  const urls = [
    () => Promise.reject(new Error("no ticket")),
    () => {
      throw new Error("no idea");
    },
    () => new Promise(() => {}),
    async () => new URL("ws://server/?ticket=4"),
  ];
  const s = start(t, {}, () => urls.shift()());
  s.socket.open();
  await s.tick();
  assert.deepEqual([s.states.at(-1)[1].error.message, delayOf(s)], ["no ticket", 500]);
  await s.tick(500);
  assert.deepEqual([s.states.at(-1)[1].error.message, delayOf(s)], ["no idea", 1_000]);
  await s.tick(1_000);
  await s.tick(10_000);
  assert.deepEqual([s.states.at(-1)[1].reason, delayOf(s)], ["timeout", 2_000]);
  await s.tick(2_000);
  assert.equal(FakeWebSocket.last.url, "ws://server/?ticket=4");
});

test("an url that can't be stops it", async (t) => {
  const s = start(t, {}, "ws://impossible");
  s.socket.open();
  await s.tick();
  assert.equal(s.states.at(-1)[0], "stopped");
  assert.match(s.states.at(-1)[1].error.message, /can't be/);
});

test("an attempt that takes too long is given up; a late success is closed", async (t) => {
  const s = start(t, { timeout: 4_000 });
  s.socket.open();
  await s.tick(3_999);
  assert.equal(s.socket.state, "connecting");
  await s.tick(1);
  assert.deepEqual(s.states.at(-1)[1], { code: 1006, reason: "timeout", error: undefined, delay: 500 });
  const late = FakeWebSocket.last;
  assert.equal(late.closed.length, 2);
  late.closed = undefined;
  late.opens();
  assert.ok(late.closed);
  assert.equal(s.socket.state, "waiting");
});

test("Safari isn't told to close while it connects, but once it has", async (t) => {
  page(t).navigator.vendor = "Apple Computer, Inc.";
  const s = start(t);
  s.socket.open();
  await s.tick();
  s.socket.close();
  assert.equal(FakeWebSocket.last.closed, undefined);
  FakeWebSocket.last.opens();
  assert.ok(FakeWebSocket.last.closed);
});

test("close while an attempt is under way, and open again", async (t) => {
  let give;
  const s = start(t, {}, () => new Promise((resolve) => (give = resolve)));
  s.socket.open();
  await s.tick();
  const first = give;
  s.socket.close(3001, "bye");
  assert.deepEqual(s.states, ["connecting", ["idle", { code: 3001, reason: "bye" }]]);
  first("ws://server/first");
  await s.tick(60_000);
  assert.equal(count(), 0);
  s.socket.open();
  await s.tick();
  give("ws://server/second");
  await s.tick();
  assert.deepEqual(FakeWebSocket.all.map((ws) => ws.url), ["ws://server/second"]);
  s.socket.close();
  s.socket.close();
  assert.equal(s.states.length, 4); // idle is told once
});

test("open while it waits connects at once; while it is open, nothing happens", async (t) => {
  const s = start(t);
  const ws = await s.open();
  s.socket.open();
  await s.tick();
  assert.equal(count(), 1);
  ws.ends(1013);
  s.socket.open();
  await s.tick();
  assert.equal(count(), 2);
  await s.tick(9_000); // the wait is over without a third
  assert.equal(count(), 2);
});

test("silence for longer than the beat and the timeout is a lost connection", async (t) => {
  const s = start(t);
  const ws = await s.open();
  for (let i = 0; i < 5; i++) {
    await s.tick(34_999);
    ws.says(0);
  }
  assert.equal(s.socket.state, "open");
  await s.tick(34_999);
  assert.equal(s.socket.state, "open");
  await s.tick(1);
  assert.deepEqual([s.states.at(-1)[1].code, s.states.at(-1)[1].reason], [1006, "silence"]);
  assert.ok(ws.closed);
  ws.says([[1]], "too late"); // nobody hears it
  await s.tick(500);
  assert.equal(count(), 2);
});

test("a server of wsroom.v1 that says nothing at all is lost; one that promises no beat may be silent", async (t) => {
  const s = start(t);
  s.socket.open();
  await s.tick();
  FakeWebSocket.last.readyState = 1;
  FakeWebSocket.last.protocol = "wsroom.v1";
  FakeWebSocket.last.onopen({});
  await s.tick(10_000);
  assert.equal(s.states.at(-1)[1].reason, "silence");
  const ws = await s.open();
  ws.says({ v: 1, beat: 0, keep: 0 });
  await s.tick(3_600_000);
  assert.equal(s.socket.state, "open");
});

// ---- in a page

const wakes = [["online", "window"], ["pageshow", "window"], ["visibilitychange", "tell"], ["resume", "tell"]];
for (const [type, where] of wakes) {
  test(`${type}: a wait ends within half a second, and an open connection is probed`, async (t) => {
    const p = page(t);
    const s = start(t);
    const ws = await s.open();
    await s.tick(20_000);
    p[where](type);
    p[where](type);
    assert.deepEqual(ws.sent, ["\0"]);
    await s.tick(4_999);
    ws.says(0);
    await s.tick(30_000);
    assert.equal(s.socket.state, "open");
    p[where](type);
    await s.tick(5_000);
    assert.deepEqual(s.states.at(-1)[1].reason, "silence");

    for (let i = 0; i < 8; i++) {
      await s.tick(60_000);
      FakeWebSocket.last.ends();
    }
    assert.equal(delayOf(s), 15_000);
    p[where](type);
    assert.equal(delayOf(s), 250);
    const n = count();
    await s.tick(250);
    assert.equal(count(), n + 1);
  });
}

test("a wake-up respects what the server asked for, and makes no wait longer", async (t) => {
  const p = page(t);
  const s = start(t);
  (await s.open()).ends(1013);
  assert.equal(delayOf(s), 7_500);
  await s.tick(1_000);
  p.window("online");
  assert.equal(delayOf(s), 4_250);
  await s.tick(4_200);
  p.window("online");
  const n = count();
  await s.tick(50);
  assert.equal(count(), n + 1);
});

test("after a sleep in which timers stood still, the silence is noticed at once", async (t) => {
  const p = page(t);
  const s = start(t);
  const ws = await s.open();
  const now = Date.now();
  t.mock.method(Date, "now", () => now + 36_000); // and no timer has run
  p.tell("resume");
  assert.equal(s.states.findLast(([state]) => state === "waiting")[1].reason, "silence");
  assert.deepEqual(ws.sent, []);
});

test("a page that hides, and one that is offline, wake nothing; offline probes", async (t) => {
  const p = page(t);
  const s = start(t);
  const ws = await s.open();
  p.document.hidden = true;
  p.tell("visibilitychange");
  assert.deepEqual(ws.sent, []);
  p.navigator.onLine = false;
  p.window("offline");
  assert.deepEqual(ws.sent, ["\0"]);
  await s.tick(5_000);
  const delay = delayOf(s);
  p.window("pageshow");
  assert.equal(delayOf(s), delay);
});

test("pagehide closes, pageshow comes back; close stops listening", async (t) => {
  const p = page(t);
  const s = start(t);
  const ws = await s.open();
  p.window("pagehide");
  assert.ok(ws.closed);
  assert.deepEqual([s.socket.state, s.states.at(-1)[1].reason], ["waiting", "pagehide"]);
  p.window("pageshow");
  await s.tick(250);
  FakeWebSocket.last.opens();
  assert.equal(s.socket.state, "open");
  assert.equal(p.listeners(), 6);
  s.socket.close();
  assert.equal(p.listeners(), 0);
  for (const [type, where] of [...wakes, ["pagehide", "window"]]) p[where](type);
  await s.tick(60_000);
  assert.deepEqual([s.socket.state, count()], ["idle", 2]);
});

test("a plain server is never probed", async (t) => {
  const p = page(t);
  const s = start(t, { protocols: "chat" });
  const ws = await s.open("chat");
  for (const [type, where] of wakes) p[where](type);
  await s.tick(60_000);
  assert.deepEqual([ws.sent, s.socket.state], [[], "open"]);
});
