// Requests to a hub with package route, and its questions: node route.js PORT. It prints what has come.

import { WebSocket } from "ws";
import { RequestError, RequestSocket } from "../request.js";

const [port] = process.argv.slice(2);
const seen = [];
const socket = new RequestSocket(`ws://127.0.0.1:${port}/a`, {
  WebSocket,
  buffer: 100,
  onmessage: (type, data, room) => seen.push([type, data, room ?? ""]),
  on: {
    double: async (n) => 2 * n,
    refuse: () => {
      throw new RequestError("busy", "later");
    },
  },
});
socket.open();

const outcome = (promise) => promise.catch(({ code, message }) => ({ code, message }));
for (const [type, data] of [["add", [1, 2]], ["add", "x"], ["fail"], ["hide"], ["other"], ["ask", "double"], ["ask", "refuse"], ["ask", "no"]]) {
  seen.push([type, await outcome(socket.request(type, data))]);
}
socket.tell("say", "hello");
await socket.request("say", "again");
const answered = () => seen.filter(([type]) => type === "answered").length;
for (let i = 0; i < 2_000 && answered() < 3; i++) await new Promise((later) => setTimeout(later, 5));
console.log(JSON.stringify(seen));
socket.close();
