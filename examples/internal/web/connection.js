// A WebSocket that comes back by itself. The waits grow and are random over their whole length, so
// that the pages of a crowd return one by one; a server that restarts (1001, 1012) or is full (1013) is
// left alone for a while; a refusal (4400 to 4499) and a fault of our own are final.

const shortest = 1_000, longest = 30_000; // ms; bounds of the growing wait
const settled = 10_000; // open for so long, a connection counts as good again
const patience = 10_000; // for an answer, before a connection counts as lost
const silence = 30_000; // after it, we ask whether the other end is still there

const final = (code) =>
  [1002, 1003, 1007, 1008, 1009, 1010].includes(code) ||
  (code >= 4400 && code < 4500 && code !== 4408 && code !== 4429);

export class Connection {
  state = "idle"; // then connecting, open, waiting (for until), stopped (for reason)
  until = 0;
  reason = "";

  #url;
  #onmessage;
  #onstate;
  #decode;
  #ask;
  #pulse;
  #socket = null;
  #failures = 0;
  #opened = 0; // times
  #heard = 0;
  #notBefore = 0;
  #retry; // timers
  #deadline;
  #watch;
  #life = new AbortController();

  // url is asked for before each attempt; onmessage gets what decode makes of a message; onstate tells of a
  // new state. A server that answers whatever it is sent is asked, after a silence, whether it is still
  // there. One that takes no messages isn't (ask: false), but may promise to be heard every pulse ms.
  constructor(url, { onmessage, onstate, decode = JSON.parse, ask = true, pulse = 0 }) {
    this.#url = url;
    this.#onmessage = onmessage;
    this.#onstate = onstate;
    this.#decode = decode;
    this.#ask = ask;
    this.#pulse = pulse;
    const { signal } = this.#life;
    addEventListener("online", () => this.#wake(), { signal });
    addEventListener("offline", () => this.#lost(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake(), { signal });
    this.#watch = setInterval(() => document.hidden || this.#probe(), silence);
  }

  // open connects now, whatever went before.
  open() {
    this.#drop();
    this.#set("connecting");
    this.#expect(patience);
    const socket = (this.#socket = new WebSocket(this.#url()));
    socket.onopen = () => {
      this.#opened = Date.now();
      if (!this.#ask) this.#expect(this.#pulse);
      this.#set("open");
    };
    socket.onmessage = (e) => {
      this.#heard = Date.now();
      this.#expect(this.#pulse);
      this.#onmessage(this.#decode(e.data));
    };
    socket.onclose = (e) => this.#closed(e.code, e.reason);
  }

  send(value) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(value));
    this.#deadline ?? this.#expect(patience);
    return true;
  }

  // close ends it for good.
  close() {
    this.#life.abort();
    clearInterval(this.#watch);
    this.#drop();
  }

  #set(state) {
    this.state = state;
    this.#onstate();
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#socket = null;
  }

  #closed(code, reason) {
    this.#drop();
    if (final(code)) {
      this.reason = reason || `The server closed the connection (${code}).`;
      return this.#set("stopped");
    }
    if (this.#opened && Date.now() - this.#opened > settled) this.#failures = 0;
    this.#opened = 0;
    const floor = { 1001: 1_000, 1012: 1_000, 1013: 5_000 }[code] ?? 0;
    const range = Math.min(longest, shortest * 2 ** this.#failures++);
    this.#notBefore = Date.now() + floor;
    this.#wait(floor + Math.random() * Math.max(range, 2 * floor));
  }

  #wait(ms) {
    clearTimeout(this.#retry);
    this.until = Date.now() + ms;
    this.#retry = setTimeout(() => this.open(), ms);
    this.#set("waiting");
  }

  // wake is called when things have probably changed for the better.
  #wake() {
    if (this.state === "waiting") {
      this.#wait(Math.max(this.#notBefore - Date.now(), 0) + Math.random() * 500);
    }
    this.#probe();
  }

  #probe() {
    if (this.#ask && this.state === "open" && Date.now() - this.#heard > silence / 2) this.send({});
  }

  // expect waits for the next message; for 0 ms: as long as it takes.
  #expect(ms) {
    clearTimeout(this.#deadline);
    this.#deadline = ms ? setTimeout(() => this.#lost(), ms) : undefined;
  }

  #lost() {
    if (this.#socket) this.#closed(1006, "");
  }
}
