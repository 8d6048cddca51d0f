// A y-websocket client that does what it is told, a JSON value a line, and answers each. node client.mjs URL DOCUMENT NAME
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import { Doc } from "yjs";

const [url, name, user] = process.argv.slice(2);
const doc = new Doc();
const text = doc.getText("text");
const provider = new WebsocketProvider(url, name, doc, { WebSocketPolyfill: WebSocket, disableBc: true });
const { awareness } = provider;
awareness.setLocalStateField("user", { name: user });

const patience = 60_000; // ms

// until resolves with what is true of the document or of the people.
function until(condition) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`in vain: ${JSON.stringify(text.toString())}`)), patience);
    const look = () => {
      const found = condition();
      if (!found) return;
      clearTimeout(timer);
      doc.off("update", look);
      awareness.off("change", look);
      provider.off("sync", look);
      resolve(found);
    };
    doc.on("update", look);
    awareness.on("change", look);
    provider.on("sync", look);
    look();
  });
}

const people = () => [...awareness.getStates().values()].map((state) => state.user?.name).sort();
let closed;
provider.on("closed", (why) => (closed = why));
const emit = provider.emit.bind(provider);
provider.emit = (event, args) => {
  emit(event, args);
  if (event === "closed") emit("sync", [false]); // for until
};

const does = {
  insert: ({ at, text: added }) => text.insert(Math.min(at ?? text.length, text.length), added),
  delete: ({ at, length }) => text.delete(at, length),
  type: ({ times, text: added }) => { for (let i = 0; i < times; i++) text.insert(text.length, added); },
  offline: () => provider.disconnect(),
  online: () => provider.connect(),
  synced: () => until(() => provider.synced),
  text: ({ of }) => until(() => provider.synced && of.join("").length === text.length && of.every((part) => text.toString().includes(part)) && text.toString()),
  is: ({ text: wanted }) => until(() => provider.synced && text.toString() === wanted),
  people: ({ are }) => until(() => JSON.stringify(people()) === JSON.stringify([...are].sort())),
  closed: () => until(() => closed),
  send: ({ bytes }) => provider.ws.send(Buffer.from(bytes, "base64")),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...how } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await does[what](how)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
provider.destroy();
process.exit();
