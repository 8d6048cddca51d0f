// Stand-ins for tests that force odd orders: a WebSocket that a test plays the server of, with no more than React
// Native's has (no addEventListener), and a page.

import { mock } from "node:test";

export class FakeWebSocket {
  static all = [];
  static get last() {
    return this.all.at(-1);
  }

  readyState = 0;
  protocol = "";
  binaryType = "blob";
  sent = [];
  closed; // the arguments of close
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  constructor(url, protocols) {
    if (url === "ws://impossible") throw new SyntaxError("an URL that can't be");
    this.url = url;
    this.protocols = protocols;
    FakeWebSocket.all.push(this);
  }

  send(data) {
    if (this.readyState !== 1) throw new Error(`send in state ${this.readyState}`);
    this.sent.push(data);
  }

  close(...args) {
    this.closed ??= args;
    this.readyState = 2;
  }

  // ---- the server's side

  opens(protocol = "wsroom.v1") {
    this.readyState = 1;
    this.protocol = protocol;
    this.onopen?.({});
    if (protocol.endsWith("wsroom.v1")) this.says({ v: 1, beat: 25_000, keep: 120_000 });
  }

  // says sends control as JSON, and a text as it is.
  says(...messages) {
    for (const it of messages) {
      const verbatim = typeof it === "string" || it instanceof ArrayBuffer;
      this.onmessage?.({ data: verbatim ? it : JSON.stringify(it) });
    }
  }

  ends(code = 1006, reason = "") {
    this.readyState = 3;
    this.onerror?.({});
    this.onclose?.({ code, reason });
  }
}

export const token = (letter) => letter.repeat(68);

// resumes are the positions that a WebSocket has offered.
export const resumes = (ws) => ws.protocols.filter((p) => p.startsWith("resume.")).map((p) => p.replace("resume.", ""));

// clock makes time stand still until tick is called, and random return half; it returns tick, which also lets promises
// be settled.
export function clock(t) {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
  mock.method(Math, "random", () => 0.5);
  FakeWebSocket.all = [];
  t.after(() => mock.reset());
  return async (ms = 0) => {
    await settled();
    mock.timers.tick(ms);
    await settled();
  };
}

// settled lets promises go on.
export const settled = () => new Promise((done) => setImmediate(done));

// page makes a page of this process: window and tell dispatch an event to it.
export function page(t) {
  const window = new Target();
  const document = Object.assign(new Target(), { hidden: false });
  const navigator = { onLine: true, vendor: "Google Inc." };
  const before = Object.getOwnPropertyDescriptors(globalThis);
  const names = {
    addEventListener: window.addEventListener.bind(window),
    removeEventListener: window.removeEventListener.bind(window),
    document,
    navigator,
  };
  for (const [name, value] of Object.entries(names)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
  t.after(() => {
    for (const name of Object.keys(names)) {
      if (before[name]) Object.defineProperty(globalThis, name, before[name]);
      else delete globalThis[name];
    }
  });
  return {
    document,
    navigator,
    window: (type) => window.dispatchEvent(new Event(type)),
    tell: (type) => document.dispatchEvent(new Event(type)),
    listeners: () => window.types.size + document.types.size,
  };
}

class Target extends EventTarget {
  types = new Set(); // that somebody listens to
  addEventListener(type, listener) {
    super.addEventListener(type, listener);
    this.types.add(type);
  }
  removeEventListener(type, listener) {
    super.removeEventListener(type, listener);
    this.types.delete(type);
  }
}
