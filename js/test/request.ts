// The README's example of requests and each option once, for the types' test.

import { RequestError, RequestSocket, type RequestOptions } from "../request.js";

const options: RequestOptions = {
  fields: { type: "event", id: "ref", data: "payload", error: "err", code: "no", message: "text" },
  on: {
    confirm: async (question: string) => confirm(question),
    typing: (who: { name: string }, room) => console.log(`${who.name} is typing in ${room ?? "nowhere"}`),
    refuse() {
      throw new RequestError("busy", "later");
    },
  },
  onmessage: (type, data, room) => console.log(type, data, room),
  onother: (data) => console.log(data),
  onstate: (state, why) => console.log(state, why?.code),
  buffer: 10,
};
const socket = new RequestSocket("/chat/general", options);
socket.open();
const sent: boolean = socket.tell("typing", { name: "ann" });
const joined = await socket.request<{ members: number }>("join", { name: "ann" }, { timeout: 5_000 });
const members: number = joined.members;
try {
  await socket.request("leave");
} catch (error) {
  if (error instanceof RequestError) console.log(error.code, error.message, sent, members);
}
new RequestSocket(async () => "/chat/general");

// @ts-expect-error it has a type, the data and where it was sent
new RequestSocket("/", { onmessage: (type: string, data: unknown, room: string, more: string) => {} });
// @ts-expect-error there is no such option
socket.request("join", {}, { retries: 3 });
