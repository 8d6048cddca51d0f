// A client in whatever runs this: guest.js PORT. It prints its account once a message ends with "last".

import { Socket } from "../wsroom.js";
import { Account } from "./account.js";

const port = (globalThis.Deno?.args ?? process.argv).at(-1);
const client = new Account();
const handlers = client.handlers(() => {});
const socket = new Socket(`ws://127.0.0.1:${port}`, {
  minDelay: 2,
  maxDelay: 10,
  timeout: 1_000,
  ...handlers,
  onmessage(data, room) {
    handlers.onmessage(data, room);
    if (typeof data !== "string" || !data.endsWith("last")) return;
    const { resumed, resets, gaps } = client;
    console.log(JSON.stringify({ faults: client.faults(new Set()), at: client.at.get("a"), resumed, resets, gaps }));
    socket.close();
  },
});
socket.open();
