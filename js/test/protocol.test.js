// wsroom.v1, message by message, in orders that a server seldom has.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Socket } from "../wsroom.js";
import { clock, FakeWebSocket, resumes, token } from "./fake.js";

const A = token("A"), B = token("B"), C = token("C");

// start opens a socket; seen is what its handlers were given. come makes it connect, again if need be.
async function start(t, options) {
  const tick = clock(t);
  const seen = [];
  const socket = new Socket("ws://server/live", {
    WebSocket: FakeWebSocket,
    onmessage: (...args) => seen.push(args),
    onroom: (...args) => seen.push(["room", ...args]),
    ongap: (room) => seen.push(["gap", room]),
    ...options,
  });
  const come = async (protocol) => {
    socket.open();
    await tick();
    FakeWebSocket.last.opens(protocol);
    return FakeWebSocket.last;
  };
  t.after(() => socket.close());
  return { tick, seen, socket, come };
}

// next cuts the connection and returns what the following one offers.
async function next({ tick }, ws = FakeWebSocket.last) {
  ws.ends();
  await tick(40_000);
  assert.notEqual(FakeWebSocket.last, ws);
  return resumes(FakeWebSocket.last);
}

test("what is offered: the application's names with wsroom.v1, the plain ones, no token twice", async (t) => {
  const { come } = await start(t, { protocols: ["chat", "bearer.c2VjcmV0"] });
  const { protocols } = await come("chat+wsroom.v1");
  assert.deepEqual(protocols, ["chat+wsroom.v1", "wsroom.v1", "chat", "bearer.c2VjcmV0"]);
});

test("protocols may be a function that is asked before each attempt", async (t) => {
  let n = 0;
  const s = await start(t, { protocols: async () => `p${++n}`, resume: false });
  assert.deepEqual((await s.come("p1")).protocols, ["p1"]);
  await next(s);
  assert.deepEqual(FakeWebSocket.last.protocols, ["p2"]);
});

test("messages go to their rooms, and the position moves with them", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "10", token: A }, { in: 1, room: "b", at: "20", token: B });
  ws.says([[2, 0, "11"], [1], [1, 1, "25"]], "a1", "a2", "mine", "b1");
  assert.deepEqual(s.seen.slice(0, 2), [["room", "a", false], ["room", "b", false]]);
  assert.deepEqual(s.seen.slice(2), [["a1", "a"], ["a2", "a"], ["mine", undefined], ["b1", "b"]]);
  assert.deepEqual(await next(s), [`${A}.11.1`, `${B}.25.0`]);
});

test("a number goes on where the last run was; one for this connection alone, too", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "10", token: A }, [[1, 0, "11"]], "a1", 2, "a2", "a3", [[1]], "mine", 1, "mine too");
  assert.deepEqual(s.seen.slice(1, 4), [["a1", "a"], ["a2", "a"], ["a3", "a"]]);
  assert.deepEqual(s.seen.slice(4), [["mine", undefined], ["mine too", undefined]]);
  assert.deepEqual(await next(s), [`${A}.11.2`]);
});

test("a message that looks like control is one, once it is announced", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "1", token: A }, [[3, 0, "2"]], '{"out":0}', "[[1]]", "0");
  assert.deepEqual(s.seen.slice(1), [['{"out":0}', "a"], ["[[1]]", "a"], ["0", "a"]]);
  assert.deepEqual(await next(s), [`${A}.2.2`]);
});

test("a binary message is an ArrayBuffer, and counts", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  assert.equal(ws.binaryType, "arraybuffer");
  const data = new ArrayBuffer(3);
  ws.says({ in: 0, room: "a", at: "1", token: A }, [[1, 0, "2"]], data);
  assert.equal(s.seen[1][0], data);
  assert.deepEqual(await next(s), [`${A}.2.0`]);
});

test("a run of no message takes effect in its turn, not on arrival", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "10", token: A }, [[2, 0, "11"], [0, 0, "99"], [1, 0, "100"]], "a1");
  assert.match(s.socket.cursor, /"at":"11","n":0/);
  ws.says("a2");
  assert.match(s.socket.cursor, /"at":"99","n":0/);
  ws.says("a3", [[0, 0, "200"]]);
  assert.deepEqual(await next(s), [`${A}.200.0`]);
});

test("a cut within a run offers what was handled", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "10", token: A }, [[128, 0, "11"], [0, 0, "500"]]);
  for (let i = 0; i < 70; i++) ws.says("m");
  assert.deepEqual(await next(s), [`${A}.11.69`]);
});

test("a position begins at start, not at an entry that says none", async (t) => {
  const s = await start(t);
  let ws = await s.come();
  ws.says({ in: 0, room: "a" }, [[1]], "snapshot, first half");
  assert.equal(s.socket.resumable, false);
  assert.deepEqual(await next(s), []);
  ws = await s.come();
  ws.says({ in: 0, room: "a" }, [[1]], "snapshot", { start: 0, at: "17", token: A });
  assert.equal(s.socket.resumable, true);
  ws.says({ start: 0, at: "18", token: B }); // the application has dropped what was held
  assert.deepEqual(await next(s), [`${B}.18.0`]);
});

test("resumed: onroom says so, and the new token and position hold", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "10", token: A }, [[1, 0, "11"]], "a1");
  assert.deepEqual(await next(s), [`${A}.11.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0, resumed: true, at: "11", token: B }, [[1, 0, "12"]], "a2");
  assert.deepEqual(s.seen, [["room", "a", false], ["a1", "a"], ["room", "a", true], ["a2", "a"]]);
  assert.deepEqual(await next(s), [`${B}.12.0`]);
});

test("a cursor that was names, not resumed, is dropped at once", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "10", token: A });
  assert.deepEqual(await next(s), [`${A}.10.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0 });
  assert.deepEqual(await next(s), []);
});

test("a token stays the room's until another comes", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1", token: A }, { start: 0, at: "5" });
  assert.deepEqual(await next(s), [`${A}.5.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0, resumed: true, at: "6" });
  assert.deepEqual(await next(s), [`${A}.6.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0, resumed: true, at: "6" }, { gap: 0, at: "9" });
  assert.deepEqual(await next(s), [`${A}.9.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0 }, { start: 0, at: "20" });
  assert.deepEqual(await next(s), [`${A}.20.0`]);
});

test("a gap without a position: there is none until a run names one", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1", token: A }, { gap: 0 }, [[1, 0]], "a1");
  assert.equal(s.socket.resumable, false);
  FakeWebSocket.last.says([[2, 0, "30"]], "a2", "a3");
  assert.deepEqual(await next(s), [`${A}.30.1`]);
});

test("was says which cursor is dropped, whatever the room is called now", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1", token: A }, { in: 1, room: "b", at: "2", token: B });
  await next(s);
  (await s.come()).says({ in: 0, room: "A", was: 1, resumed: true, at: "2", token: C });
  assert.deepEqual(await next(s), [`${A}.1.0`, `${C}.2.0`]);
});

test("rooms that aren't entered again are offered again until keep is over", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1", token: A }, { in: 1, room: "b", at: "2", token: B });
  assert.deepEqual(await next(s), [`${A}.1.0`, `${B}.2.0`]);
  (await s.come()).says({ in: 0, room: "a", was: 0, resumed: true, at: "1", token: C }); // not b, yet
  assert.deepEqual(await next(s), [`${B}.2.0`, `${C}.1.0`]);
  (await s.come()).says({ in: 0, room: "b", was: 0, resumed: true, at: "2", token: A });
  assert.deepEqual(await next(s), [`${C}.1.0`, `${A}.2.0`]);
  const ws = FakeWebSocket.last;
  ws.ends();
  await s.tick(200_000);
  assert.equal(s.socket.resumable, false);
  assert.deepEqual(await next(s), []);
});

test("an older cursor of a room goes when the room is entered anew, even if the server couldn't read it", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1", token: A });
  await next(s);
  (await s.come()).says({ in: 0, room: "a", at: "9", token: B });
  assert.deepEqual(await next(s), [`${B}.9.0`]);
});

test("64 cursors are offered, the newest", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  for (let i = 0; i < 70; i++) ws.says({ in: i, room: `r${i}`, at: String(i), token: A });
  const offered = await next(s);
  assert.deepEqual([offered.length, offered[0], offered[63]], [64, `${A}.6.0`, `${A}.69.0`]);
});

test("a room without a history has no cursor", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ v: 1, beat: 25_000, keep: 0 }, { in: 0, room: "a" }, [[1, 0]], "a1");
  assert.deepEqual(s.seen, [["room", "a", false], ["a1", "a"]]);
  assert.equal(s.socket.resumable, false);
  assert.deepEqual(await next(s), []);
});

test("a gap is told once, before the messages after it, and its position holds", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "10", token: A }, [[1, 0, "11"]], "a1", { gap: 0, at: "300" }, [[1, 0, "301"]], "a2");
  assert.deepEqual(s.seen.slice(1), [["a1", "a"], ["gap", "a"], ["a2", "a"]]);
  ws.says({ gap: 0, at: "400" });
  assert.deepEqual(await next(s), [`${A}.400.0`]);
});

test("a room that was left has no cursor, and its number is free", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "1", token: A }, { in: 1, room: "b", at: "2", token: B }, { out: 1 });
  ws.says({ in: 1, room: "c", at: "3", token: C }, [[1, 1, "4"]], "c1");
  assert.deepEqual(s.seen.at(-1), ["c1", "c"]);
  assert.deepEqual(await next(s), [`${A}.1.0`, `${C}.4.0`]);
});

test("an ack is answered when the handlers before it have returned", async (t) => {
  const sent = [];
  const s = await start(t, { onmessage: () => sent.push(...FakeWebSocket.last.sent) });
  const ws = await s.come();
  ws.says([[1]], "m", { ack: 7 }, { ack: 0 });
  assert.deepEqual(sent, []);
  assert.deepEqual(ws.sent, ["\x007", "\x000"]);
});

test("control that isn't understood is ignored", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  ws.says("not JSON", null, true, "\"text\"", 0, -1, [], [5], [[]], {}, new ArrayBuffer(2));
  ws.says({ future: [1] }, { gap: 9 }, { start: 9 }, { out: 9 });
  ws.says({ in: 0, room: "a", at: "1", token: A, future: 1 }, [[1, 0, "2"]], "a1");
  ws.says([[1, 77, "5"]], "to a room unheard of");
  assert.deepEqual(s.seen, [["room", "a", false], ["a1", "a"], ["to a room unheard of", undefined]]);
  assert.deepEqual(await next(s), [`${A}.2.0`]);
});

test("the cursor of a page goes to its successor; nonsense is ignored", async (t) => {
  const s = await start(t);
  (await s.come()).says({ in: 0, room: "a", at: "1-2", token: A }, [[3, 0, "2-1"]], "a1", "a2");
  const { cursor } = s.socket;
  const offers = async (text) => {
    const page = new Socket("ws://server", { WebSocket: FakeWebSocket, cursor: text });
    t.after(() => page.close());
    page.open();
    await s.tick();
    return resumes(FakeWebSocket.last);
  };
  assert.deepEqual(await offers(cursor), [`${A}.2-1.1`]);
  const odd = [`[{"token":"a b","at":"1","n":0}]`, `[{"token":"ab","at":"x","n":0}]`];
  for (const text of ["", "{", "null", "[null]", "7", "{}", '"x"', null, ...odd]) {
    assert.deepEqual(await offers(text), [], text);
  }
  await s.tick(130_000);
  assert.deepEqual(await offers(cursor), []);
});

test("in a handler, the cursor counts the message; a handler that throws loses that one only", async (t) => {
  const cursors = [], thrown = [];
  t.mock.method(globalThis, "queueMicrotask", (f) => {
    try {
      f();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const s = await start(t, {
    onmessage(data) {
      const [{ at, n }] = JSON.parse(s.socket.cursor);
      cursors.push(`${at}.${n}`);
      throw new Error(data);
    },
    onroom(room) {
      throw new Error(room);
    },
    onstate(state) {
      throw new Error(state);
    },
  });
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "1", token: A }, [[2, 0, "2"], [0, 0, "7"]], "a1", "a2", [[1, 0, "8"]], "a3");
  assert.deepEqual(cursors, ["2.0", "7.0", "8.0"]);
  assert.deepEqual(thrown, ["connecting", "open", "a", "a1", "a2", "a3"]);
  assert.deepEqual(await next(s), [`${A}.8.0`]);
});

test("a handler may close, and open again", async (t) => {
  const s = await start(t, { onmessage: (data) => data === "a1" && (s.socket.close(), s.socket.open()) });
  const ws = await s.come();
  ws.says({ in: 0, room: "a", at: "1", token: A }, [[2, 0, "2"]], "a1", "a2");
  await s.tick();
  assert.notEqual(FakeWebSocket.last, ws);
  assert.deepEqual(ws.closed, [1000, ""]);
  assert.deepEqual(resumes(FakeWebSocket.last), [`${A}.2.0`]);
});

test("text that begins with U+0000 gets one more, for wsroom.v1 only", async (t) => {
  const s = await start(t);
  const ws = await s.come();
  assert.equal(s.socket.send("\0text"), true);
  s.socket.send("text");
  s.socket.send("");
  const bytes = new Uint8Array([0, 1]);
  s.socket.send(bytes);
  assert.deepEqual(ws.sent, ["\0\0text", "text", "", bytes]);
  await next(s);
  (await s.come("chat"));
  s.socket.send("\0text");
  assert.deepEqual(FakeWebSocket.last.sent, ["\0text"]);
});

test("with a plain server everything is a message, and nothing is asked of it", async (t) => {
  const s = await start(t, { protocols: "chat" });
  const ws = await s.come("chat");
  ws.says({ v: 1 }, "0", "[[1]]");
  await s.tick(3_600_000);
  assert.deepEqual(s.seen, [['{"v":1}', undefined], ["0", undefined], ["[[1]]", undefined]].map(([m]) => [m]));
  assert.deepEqual([ws.sent, s.socket.state, s.socket.resumable], [[], "open", false]);
});

test("resume: false offers nothing of ours", async (t) => {
  const s = await start(t, { resume: false });
  assert.deepEqual((await s.come("")).protocols, []);
});

test("send says whether it was sent; buffer keeps that many", async (t) => {
  const s = await start(t);
  assert.equal(s.socket.send("too early"), false);
  const ws = await s.come();
  assert.equal(s.socket.send("now"), true);
  ws.readyState = 2;
  assert.equal(s.socket.send("while it closes"), false);
  assert.deepEqual(ws.sent, ["now"]);
});

test("what was kept goes first, once, and not after close", async (t) => {
  const s = await start(t, { buffer: 2, onstate: (state) => state === "open" && s.socket.send("fresh") });
  assert.deepEqual(["\0one", "two", "three"].map((m) => s.socket.send(m)), [true, true, false]);
  const ws = await s.come();
  assert.deepEqual(ws.sent, ["\0\0one", "two", "fresh"]);
  ws.ends();
  assert.equal(s.socket.send("kept"), true);
  s.socket.close();
  assert.equal(s.socket.send("kept for the next"), true);
  assert.deepEqual((await s.come()).sent, ["kept for the next", "fresh"]);
  FakeWebSocket.last.ends(4403);
  assert.equal(s.socket.send("never"), false);
});
