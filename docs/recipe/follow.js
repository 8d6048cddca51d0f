import { Socket } from "./wsroom.js";

// follow shows each message of a room once and in order: those from number have + 1 on.
export function follow(url, show, have = 0, options = {}) {
  const early = new Map(); // messages that wait for those before them, by number
  let asking;

  function take(messages) {
    for (const m of messages) if (m.n > have) early.set(m.n, m);
    for (let m; (m = early.get(have + 1)); show(m)) early.delete(++have);
    if (early.size) asking ??= setTimeout(ask, 250); // what is on its way may come by itself
  }

  function ask() {
    asking = undefined;
    if (early.size) socket.send(JSON.stringify({ have }));
  }

  const address = async () => `${await (typeof url === "function" ? url() : url)}?have=${have}`;
  const socket = new Socket(address, { ...options, onmessage: (data) => take(JSON.parse(data)) });
  socket.open();
  return socket;
}
