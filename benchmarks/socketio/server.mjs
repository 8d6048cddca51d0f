// Socket.IO's chat, a process with one node: node server.mjs [address of Redis [recover]]. With recover it keeps what
// a client needs that comes back. It prints its address, then
// answers each line of its standard input with what it has used so far, and ends when that does.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const options = { transports: ["websocket"], serveClient: false };
const [redis, recover] = process.argv.slice(2);
if (recover) {
  const client = createClient({ url: `redis://${redis}` });
  await client.connect();
  options.adapter = createStreamsAdapter(client);
  options.connectionStateRecovery = { maxDisconnectionDuration: 120_000 };
} else if (redis) {
  const publisher = createClient({ url: `redis://${redis}` });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter = createAdapter(publisher, subscriber);
}

const http = createServer();
const io = new Server(http, options);
io.on("connection", (socket) => {
  const { room } = socket.handshake.auth;
  if (!socket.recovered) socket.join(room);
  socket.on("m", (message) => io.to(room).emit("m", message));
});
http.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${http.address().port}`));

const resident = () => Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
createInterface({ input: process.stdin })
  .on("line", () => {
    const { user, system } = process.cpuUsage(); // in µs
    console.log(JSON.stringify({ User: user * 1000, System: system * 1000, Resident: resident() }));
  })
  .on("close", () => process.exit());
