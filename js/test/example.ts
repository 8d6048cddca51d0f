// The README's example and each option once, for the types' test.

import { Socket, type Options, type State, type Why } from "../wsroom.js";

const log = (text: string) => console.log(text);

const socket = new Socket("/chat/general", {
  onmessage: (data, room) => log(`${room ?? "to me"}: ${data}`),
  onroom: (room, resumed) => resumed || log(`${room} begins anew`),
  ongap: (room) => log(`${room}: messages are missing`),
  onstate: (state, why) => log(state === "waiting" ? `again in ${why?.delay} ms` : state),
});
socket.open();
if (!socket.send("hello")) log("not sent");

const options: Options = {
  protocols: async () => ["chat", "bearer.c2VjcmV0"],
  resume: true,
  cursor: sessionStorage.getItem("cursor"),
  buffer: 10,
  timeout: 5_000,
  minDelay: 500,
  maxDelay: 60_000,
  policy: (code, reason, tries) => (code === 4403 && tries > 3 ? false : undefined),
  renew: async () => (await fetch("/renew")).ok,
  WebSocket,
  onstate(state: State, why?: Why) {
    log(`${state} ${why?.code} ${why?.reason} ${why?.error}`);
  },
};
const other = new Socket(async () => new URL("wss://example.org/live"), options);
addEventListener("pagehide", () => sessionStorage.setItem("cursor", other.cursor));
const kept: boolean = other.send(new Uint8Array([1, 2, 3]));
other.close(3000, kept && other.resumable ? "later" : "bye");

// @ts-expect-error a state is the socket's own
other.state = "open";
// @ts-expect-error there is no such option
new Socket("/", { retries: 3 });
