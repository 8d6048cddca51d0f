// Messages with a type, requests with a reply, and answers to the server's questions: the other side of wsroom's
// package route. request.d.ts has the documentation.

import { Socket } from "./wsroom.js";

const defaults = { type: "type", id: "id", data: "data", error: "error", code: "code", message: "message" };

const maxTimer = 2 ** 31 - 1; // what is longer would fire at once

export class RequestError extends Error {
  name = "RequestError";

  constructor(code, message = "") {
    super(message || code);
    this.code = code;
  }
}

export class RequestSocket extends Socket {
  #names;
  #options;
  #pending = new Map(); // by id: {resolve, reject, timer}
  #last = 0; // id
  #connection = 0; // counts those that have ended: the server numbers its questions anew in each
  #open = false;

  constructor(url, options = {}) {
    super(url, {
      ...options,
      onmessage: (data, room) => this.#take(data, room),
      onstate: (state, why) => {
        if (this.#open ? state !== "open" : state === "idle" || state === "stopped") this.#ended();
        this.#open = state === "open";
        options.onstate?.(state, why);
      },
    });
    this.#options = options;
    this.#names = { ...defaults, ...options.fields };
  }

  tell(type, data) {
    return this.#send({ type, data });
  }

  request(type, data, { timeout = 10_000 } = {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      if (!this.#send({ type, id, data })) return reject(new RequestError("closed"));
      const timer = setTimeout(() => this.#settle(id, new RequestError("timeout")), Math.min(timeout, maxTimer));
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  // send sends a message whose fields have our names.
  #send(fields) {
    const named = Object.entries(fields).map(([name, value]) => [this.#names[name], value]);
    return this.send(JSON.stringify(Object.fromEntries(named)));
  }

  #ended() {
    this.#connection++;
    for (const id of [...this.#pending.keys()]) this.#settle(id, new RequestError("closed"));
  }

  #settle(id, error, data) {
    const request = this.#pending.get(id);
    if (!request) return; // it is late
    this.#pending.delete(id);
    clearTimeout(request.timer);
    if (error) request.reject(error);
    else request.resolve(data);
  }

  #take(raw, room) {
    const { type: typeName, id: idName, data: dataName, error: errorName } = this.#names;
    const { on = {}, onmessage, onother } = this.#options;
    let it;
    try {
      it = JSON.parse(raw);
    } catch {} // it is of another form
    const type = it?.[typeName];
    const id = it?.[idName];
    const data = it?.[dataName];
    if (typeof type === "string") {
      const handler = Object.hasOwn(on, type) ? on[type] : undefined;
      if (id != null) this.#answer(id, handler, data, room);
      else if (handler) handler(data, room);
      else onmessage?.(type, data, room);
    } else if (id != null) {
      this.#settle(id, this.#errorOf(it[errorName]), data);
    } else onother?.(raw, room);
  }

  #errorOf(it) {
    const { code, message } = this.#names;
    return it == null ? undefined : new RequestError(it[code] ?? "", it[message] ?? (typeof it === "string" ? it : ""));
  }

  async #answer(id, handler, data, room) {
    const connection = this.#connection;
    const reply = (fields) => connection === this.#connection && this.#send({ id, ...fields });
    const refuse = (code, message) => {
      const { code: codeName, message: messageName } = this.#names;
      reply({ error: { [codeName]: code, [messageName]: message || undefined } });
    };
    if (!handler) return refuse("unknown_type");
    try {
      reply({ data: await handler(data, room) });
    } catch (error) {
      if (error instanceof RequestError) return refuse(error.code, error.message === error.code ? "" : error.message);
      refuse("internal");
      queueMicrotask(() => {
        throw error; // it is the application's
      });
    }
  }
}
