// A small server of wsroom.v1, over ws: rooms with a history, snapshots for newcomers, Except, messages to one
// connection, acks. It splits what it sends into runs at random, so that every form of them comes.

import { createHmac, randomBytes } from "node:crypto";
import { createServer, connect } from "node:net";
import { WebSocketServer } from "ws";

const key = randomBytes(32);
const tagOf = (room) => createHmac("sha256", key).update(room).digest().subarray(0, 8);

// sign makes a token: 1 byte, the room's tag, 18 bytes, the connection's number, and 16 of a MAC.
function sign(room, conn) {
  const body = Buffer.alloc(35, 1);
  tagOf(room).copy(body, 1);
  body.writeBigUInt64BE(BigInt(conn), 27);
  return Buffer.concat([body, createHmac("sha256", key).update(body).digest().subarray(0, 16)]).toString("base64url");
}

const some = (n) => Math.floor(Math.random() * n);

class Room {
  log = []; // {number, data, except}
  members = new Set();
  constructor(name, keep) {
    this.name = name;
    this.keep = keep;
    this.base = this.last = Date.now() * 1000; // positions aren't the messages' own numbers
  }

  // publish gives data the room's next number; except is a connection that doesn't get it, nor one that resumes
  // from it.
  publish(data, except) {
    const entry = { number: ++this.last, data, except: except?.tagIn(this) };
    this.log.push(entry);
    if (this.log.length > this.keep) this.log.shift();
    for (const conn of this.members) conn.queue(this, entry);
    return entry.number;
  }
}

let ids = 0;

class Conn {
  id = ++ids;
  settled = false; // the client has handled its entries
  acks = new Map(); // from an ack's number to what is called on the answer
  #asked = 0;
  #entries = [];
  #rooms = new Map(); // {index, at: the last number that the client is told of, unnamed}
  #last;
  #begun = false;
  #due;

  constructor(server, socket) {
    this.server = server;
    this.socket = socket;
    this.offers = socket.offered.map((offer) => {
      const [, token, at, n] = offer.match(/^resume\.([\w-]{68})\.(\d+)\.(\d+)$/) ?? [];
      return token && { token, body: Buffer.from(token, "base64url"), number: Number(at) + Number(n) };
    });
    socket.on("message", (data, binary) => this.#heard(data, binary));
    socket.on("close", () => {
      for (const room of server.rooms.values()) room.members.delete(this);
      clearImmediate(this.#due);
    });
    socket.on("error", () => {});
    this.control({ v: 1, beat: server.beat, keep: 60_000 });
    for (const room of server.rooms.values()) this.#enter(room);
    this.ask(() => (this.settled = true));
  }

  #enter(room) {
    const index = this.#rooms.size;
    const was = this.offers.findIndex((o) => o && tagOf(room.name).equals(o.body.subarray(1, 9)));
    const offer = this.offers[was];
    const from = offer && sign(room.name, offer.body.readBigUInt64BE(27)) === offer.token ? offer.number : 0;
    const oldest = room.log[0]?.number ?? room.last + 1;
    const resumed = from >= oldest - 1 && from <= room.last;
    const at = resumed ? from : room.last;
    this.#rooms.set(room, { index, at, unnamed: 64 });
    // Who comes back keeps the tag: it may be cut again before it has heard of what wasn't for its predecessor.
    const tag = resumed ? Number(offer.body.readBigUInt64BE(27)) : this.id;
    this.#rooms.get(room).tag = tag;
    const start = { at: String(at), token: sign(room.name, tag) };
    this.control({ in: index, room: room.name, ...(offer && { was }), ...(resumed && { resumed, ...start }) });
    if (resumed) {
      for (const e of room.log) if (e.number > from) this.queue(room, e);
    } else {
      this.direct(`snapshot ${room.name} ${room.last - room.base}`);
      this.control({ start: index, ...start });
    }
    room.members.add(this);
  }

  tagIn(room) {
    return this.#rooms.get(room).tag;
  }

  control(it) {
    this.#push({ control: JSON.stringify(it) });
  }

  direct(data) {
    this.#push({ data });
  }

  queue(room, { number, data, except }) {
    this.#push(except === this.tagIn(room) ? { room, number, skip: true } : { room, number, data });
  }

  // lose drops what waits for the client in the room, as a full queue does.
  lose(room) {
    this.#entries = this.#entries.filter((e) => e.room !== room);
  }

  // ask calls back when the client has handled all before.
  ask(done) {
    this.acks.set(++this.#asked, done);
    this.control({ ack: this.#asked });
  }

  #push(entry) {
    this.#entries.push(entry);
    this.#due ??= setImmediate(() => this.flush());
  }

  #heard(data, binary) {
    const text = binary ? "" : data.toString();
    if (text === "\0") return this.control(0);
    if (text[0] === "\0" && text[1] !== "\0") {
      const n = Number(text.slice(1));
      this.acks.get(n)?.();
      this.acks.delete(n);
      return;
    }
    this.server.onmessage(this, binary ? data : text[0] === "\0" ? text.slice(1) : text);
  }

  flush() {
    this.#due = undefined;
    const entries = this.#entries.splice(0);
    for (let e; (e = entries[0]); ) {
      if (e.control !== undefined) {
        this.#write(e.control);
        entries.shift();
        continue;
      }
      const end = entries.findIndex((e) => e.control !== undefined);
      this.#batch(entries.splice(0, Math.min(end < 0 ? entries.length : end, 1 + some(128))));
    }
  }

  // batch writes messages behind a header.
  #batch(entries) {
    const runs = [];
    const write = [];
    const out = () => {
      if (runs.length === 0) return;
      const [[count, index, at]] = runs;
      const on = runs.length === 1 && count && at === undefined && this.#begun && this.#last === index;
      this.#write(JSON.stringify(on ? count : runs));
      this.#last = runs.at(-1)[1];
      this.#begun = true;
      for (const data of write) this.#write(data);
      runs.length = write.length = 0;
    };
    for (const { room, number, data, skip } of entries) {
      const known = this.#rooms.get(room);
      if (!known) {
        if (runs.at(-1)?.length === 1 && some(4)) runs.at(-1)[0]++;
        else runs.push([1]);
      } else {
        if (number !== known.at + 1) {
          out();
          this.#write(JSON.stringify({ gap: known.index, ...(some(2) && { at: String(number - 1) }) }));
          known.unnamed = 64;
        }
        known.at = number;
        if (skip) {
          runs.push([0, known.index, String(number)]);
          known.unnamed = 0;
          continue;
        }
        const named = known.unnamed++ >= 64 || some(20) === 0;
        const last = runs.at(-1);
        if (named) (known.unnamed = 1), runs.push([1, known.index, String(number)]);
        else if (last?.[1] === known.index && last[0] > 0 && some(10)) last[0]++;
        else runs.push([1, known.index]);
      }
      write.push(data);
    }
    out();
  }

  #write(data) {
    this.socket.send(data);
  }
}

// serve starts a server with these rooms, each with a history of keep messages.
export async function serve(names, keep = 1000) {
  const ws = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    handleProtocols(protocols, request) {
      request.offered = [...protocols].filter((p) => p.startsWith("resume."));
      return [...protocols].find((p) => p === "wsroom.v1") ?? false;
    },
  });
  await new Promise((listening) => ws.once("listening", listening));
  const server = {
    rooms: new Map(names.map((name) => [name, new Room(name, keep)])),
    conns: new Set(),
    beat: 25_000,
    port: ws.address().port,
    onmessage() {},
    close() {
      for (const socket of ws.clients) socket.terminate();
      ws.close();
    },
  };
  ws.on("connection", (socket, request) => {
    socket.offered = request.offered;
    const conn = new Conn(server, socket);
    server.conns.add(conn);
    socket.on("close", () => server.conns.delete(conn));
  });
  return server;
}

// line is a TCP proxy before a port that cuts each connection after a random number of bytes, until it is
// mended.
export async function line(port, most = 20_000) {
  const ends = new Set();
  const state = { cuts: 0, mended: false };
  const proxy = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    ends.add(near);
    let left = some(most);
    const cut = () => {
      near.destroy();
      far.destroy();
      ends.delete(near);
    };
    far.on("data", (data) => {
      if (state.mended || data.length <= left) {
        left -= data.length;
        return near.write(data);
      }
      state.cuts++;
      near.write(data.subarray(0, left), cut);
      left = 0;
    });
    near.pipe(far);
    for (const end of [near, far]) end.on("error", cut).on("close", cut);
  });
  await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening));
  state.port = proxy.address().port;
  state.close = () => {
    for (const end of ends) end.destroy();
    proxy.close();
  };
  return state;
}
