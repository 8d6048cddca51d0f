// A WebSocket that comes back by itself and, with a hub of wsroom that keeps a history, misses nothing that was
// sent while it was away. wsroom.d.ts has the documentation.

const V1 = "wsroom.v1";
const MOST = 64; // cursors in one handshake
const SETTLED = 10_000; // ms; open for so long, a connection counts as good again

// These codes end it for good: a normal end, faults of our own, and refusals.
const final = (code) =>
  [1000, 1002, 1003, 1007, 1009, 1010].includes(code) ||
  (code >= 4400 && code < 4500 && code !== 4408 && code !== 4429);

// After these codes it stays away for so many ms at least: a restart, a violated policy, a server that is full.
const floors = { 1001: 500, 1008: 10_000, 1012: 500, 1013: 5_000, 4408: 5_000, 4429: 5_000 };

const defaults = { resume: true, buffer: 0, timeout: 10_000, minDelay: 1_000, maxDelay: 30_000 };

// Closing a WebSocket that is still connecting breaks Safari's (rails/rails#44304). Chrome's blocks the next one
// if it isn't closed.
const mayAbort = () => !/^Apple/.test(globalThis.navigator?.vendor);

const valueOf = (it) => (typeof it === "function" ? it() : it);
const position = (c) => `${c?.token}.${c?.at}.${c?.n}`;

export class Socket {
  state = "idle"; // then connecting, open, waiting, stopped
  #why;
  #url;
  #options;
  #socket;
  #attempt = 0; // what began in an earlier attempt is void
  #timer; // the attempt's, the silence's, or the wait's
  #tries = 0;
  #soonest = 0; // times
  #retry = 0;
  #opened = 0;
  #heard = 0;
  #refused; // the why of a 4401, until renew has returned
  #buffer = [];

  // What wsroom.v1 says. A cursor is {room, token, at, n}: the nth message after the one at `at` is the last that
  // onmessage was given. While its room isn't entered, it is good until `until`.
  #v1 = false;
  #beat = 0;
  #keep = 0;
  #probing = false;
  #cursors = [];
  #offered = [];
  #rooms = {}; // cursors by the room's number in this connection
  #runs = []; // {left, cursor, at}: what the next messages are
  #last; // the cursor of the last run

  constructor(url, options) {
    this.#url = url;
    this.#options = { ...defaults, ...options };
    try {
      this.#cursors = [].concat(JSON.parse(this.#options.cursor));
    } catch {} // it is of no use
  }

  get cursor() {
    const until = Date.now() + this.#keep;
    return JSON.stringify(this.#good().map((c) => ({ until, ...c })));
  }

  get resumable() {
    return this.#good().length > 0;
  }

  open() {
    if (this.state === "connecting" || this.state === "open") return;
    this.#listen("addEventListener");
    this.#connect();
  }

  close(code = 1000, reason = "") {
    this.#drop(code, reason);
    this.#listen("removeEventListener");
    this.#buffer = [];
    this.#refused = undefined;
    if (this.state !== "idle") this.#set("idle", { code, reason });
  }

  send(data) {
    if (this.state === "open" && this.#socket.readyState === 1) {
      this.#write(data);
      return true;
    }
    if (this.state === "stopped" || this.#buffer.length >= this.#options.buffer) return false;
    this.#buffer.push(data);
    return true;
  }

  #write(data) {
    this.#socket.send(this.#v1 && data[0] === "\0" ? "\0" + data : data);
  }

  #set(state, why) {
    this.state = state;
    this.#why = why;
    this.#call("onstate", state, why);
  }

  // call calls one of the application's functions. If that throws, it is the application's error, not ours.
  #call(name, ...args) {
    try {
      return this.#options[name]?.(...args);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  // ---- connecting, and coming back

  async #connect() {
    this.#drop();
    const attempt = this.#attempt;
    const { protocols, resume, renew, timeout, WebSocket = globalThis.WebSocket } = this.#options;
    this.#expect(timeout, "timeout");
    this.#set("connecting");

    let url, own;
    try {
      const renewed = this.#refused && (await renew());
      if (attempt !== this.#attempt) return;
      if (renewed === false) return this.#stop(this.#refused);
      this.#refused = undefined;
      url = await valueOf(this.#url);
      own = [].concat((await valueOf(protocols)) ?? []);
    } catch (error) {
      if (attempt === this.#attempt) this.#ended(1006, "", error);
      return;
    }
    if (attempt !== this.#attempt) return;

    try {
      const socket = new WebSocket(String(url), resume ? this.#offer(own) : own);
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#openedBy(socket);
      socket.onmessage = ({ data }) => this.#receive(data);
      socket.onclose = ({ code, reason }) => this.#ended(code, reason);
      socket.onerror = () => {}; // a close follows; ws throws what nobody listens to
    } catch (error) {
      this.#stop({ code: 1006, reason: "", error }); // an URL or a protocol that can't be
    }
  }

  #offer(own) {
    this.#cursors = this.#good();
    this.#offered = this.#cursors.slice(-MOST);
    return [
      ...own.filter((name) => !/^bearer\./i.test(name)).map((name) => `${name}+${V1}`),
      V1,
      ...own,
      ...this.#offered.map((c) => `resume.${position(c)}`),
    ];
  }

  #openedBy(socket) {
    this.#opened = this.#heard = Date.now();
    this.#v1 = socket.protocol === V1 || socket.protocol.endsWith("+" + V1);
    this.#expect(this.#v1 && this.#options.timeout);
    for (const data of this.#buffer) this.#write(data);
    this.#buffer = [];
    this.#set("open");
  }

  // drop leaves the WebSocket, if there is one, and the wait for another.
  #drop(code, reason) {
    const socket = this.#socket;
    if (socket?.readyState || mayAbort()) socket?.close(code, reason); // it throws for a code that can't be
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.onopen = () => socket.close();
    }
    this.#socket = undefined;
    this.#attempt++;
    clearTimeout(this.#timer);
    for (const cursor of Object.values(this.#rooms)) cursor.until = Date.now() + this.#keep;
    this.#rooms = {};
    this.#runs = [];
    this.#opened = this.#beat = 0;
    this.#v1 = this.#probing = false;
  }

  // ended is called when a connection has ended, or an attempt failed, other than by close.
  #ended(code, reason, error) {
    const { renew, minDelay, maxDelay } = this.#options;
    const now = Date.now();
    if (this.#opened && now - this.#opened >= SETTLED) this.#tries = 0;
    this.#drop();
    const why = { code, reason, error };
    if (code === 4401 && renew) this.#refused = why;
    const attempt = this.#attempt;
    const usual = final(code) && !(code === 4401 && renew) ? false : (floors[code] ?? 0);
    const floor = this.#call("policy", code, reason, this.#tries) ?? usual;
    if (attempt !== this.#attempt) return; // it has called open or close
    if (floor === false) return this.#stop(why);
    const range = Math.max(Math.min(maxDelay, minDelay * 2 ** this.#tries++), floor);
    this.#soonest = now + floor;
    this.#wait(floor + Math.random() * range, why);
  }

  #stop(why) {
    this.#drop();
    this.#refused = undefined;
    this.#set("stopped", why);
  }

  #wait(delay, why) {
    clearTimeout(this.#timer);
    this.#retry = Date.now() + delay;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#set("waiting", { ...why, delay });
  }

  // expect waits for the next message; for 0 ms: as long as it takes.
  #expect(ms, reason = "silence") {
    clearTimeout(this.#timer);
    if (ms) this.#timer = setTimeout(() => this.#ended(1006, reason), ms);
  }

  #listen(method) {
    for (const type of ["online", "offline", "pagehide", "pageshow"]) globalThis[method]?.(type, this.#wake);
    for (const type of ["visibilitychange", "resume"]) globalThis.document?.[method]?.(type, this.#wake);
  }

  // wake is called when the page or the network has come back, or goes. Timers may have stood still.
  #wake = ({ type }) => {
    const { timeout } = this.#options;
    const now = Date.now();
    if (type === "pagehide") {
      // With an open WebSocket the page can't be kept for the way back.
      if (this.state === "connecting" || this.state === "open") this.#ended(1006, type);
      return;
    }
    if (type === "visibilitychange" && document.hidden) return;
    if (this.#beat && now - this.#heard > this.#beat + timeout) this.#ended(1006, "silence");
    if (this.state === "waiting" && globalThis.navigator?.onLine !== false) {
      const delay = Math.max(this.#soonest - now, 0) + Math.random() * 500;
      if (delay < this.#retry - now) this.#wait(delay, this.#why);
    } else if (this.#v1 && !this.#probing) {
      this.#probing = true;
      this.#socket.send("\0");
      this.#expect(timeout / 2);
    }
  };

  // ---- what comes

  #receive(data) {
    this.#heard = Date.now();
    this.#probing = false;
    this.#expect(this.#beat && this.#beat + this.#options.timeout);
    if (!this.#v1) return this.#call("onmessage", data);
    const run = this.#runs[0];
    if (!run) {
      try {
        this.#control(JSON.parse(data));
      } catch {} // it isn't for this version
      return;
    }
    run.left--;
    this.#step(run);
    this.#settle();
    this.#call("onmessage", data, run.cursor?.room);
  }

  // step moves the run's cursor by one message, or to where the run begins.
  #step(run) {
    const { cursor, at } = run;
    if (cursor && at) Object.assign(cursor, { at, n: 0 });
    else if (cursor) cursor.n++;
    run.at = undefined;
  }

  // settle takes off the runs that are over. A run of no message moves its cursor in its turn.
  #settle() {
    for (let run; (run = this.#runs[0]) && !(run.left > 0); this.#runs.shift()) if (run.at) this.#step(run);
  }

  #announce(left, cursor, at) {
    this.#runs.push({ left, cursor, at });
    this.#last = cursor;
  }

  #control(it) {
    if (Array.isArray(it)) for (const [left, number, at] of it) this.#announce(left, this.#rooms[number], at);
    else if (typeof it === "object") this.#tell(it);
    else if (typeof it === "number" && it > 0) this.#announce(it, this.#last);
    this.#settle();
  }

  #tell({ v, beat, keep, in: entered, room, at, token, was, resumed, start, gap, out, ack }) {
    const rooms = this.#rooms;
    if (v) {
      this.#beat = beat;
      this.#keep = keep;
      this.#expect(beat && beat + this.#options.timeout);
    }
    const begin = (cursor) => Object.assign(cursor, { at, n: 0 }, token && { token });
    if (entered >= 0) {
      const offered = this.#offered[was];
      rooms[entered] = begin({ room, token: offered?.token });
      const others = this.#cursors.filter((c) => c !== offered && c.room !== room);
      this.#cursors = [...others, rooms[entered]];
      this.#call("onroom", room, Boolean(resumed));
    }
    if (start >= 0) begin(rooms[start]);
    if (gap >= 0) {
      begin(rooms[gap]);
      this.#call("ongap", rooms[gap].room);
    }
    if (out >= 0) {
      this.#cursors = this.#cursors.filter((c) => c !== rooms[out]);
      delete rooms[out];
    }
    if (ack >= 0) this.#socket.send("\0" + ack);
  }

  // good are the cursors that are worth an offer. Without a history they have no token.
  #good() {
    const now = Date.now();
    return this.#cursors.filter((c) => /^[\w-]+\.\d+(-\d+)?\.\d+$/.test(position(c)) && !(c.until <= now));
  }
}
