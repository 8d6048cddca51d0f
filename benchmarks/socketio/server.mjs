// Socket.IO's chat, a process with one node: node server.mjs [address of Redis]. It prints its address, then
// answers each line of its standard input with what it has used so far, and ends when that does.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const options = { transports: ["websocket"], serveClient: false };
const redis = process.argv[2];
if (redis) {
  const publisher = createClient({ url: `redis://${redis}` });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter = createAdapter(publisher, subscriber);
}

const http = createServer();
const io = new Server(http, options);
io.on("connection", (socket) => {
  const { room } = socket.handshake.auth;
  socket.join(room);
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
