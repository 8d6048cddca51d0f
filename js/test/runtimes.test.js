// The client in other runtimes, with their own WebSocket: npm installs them where it can.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { line, serve } from "./server.js";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const runtimes = {
  Deno: [at("node_modules/@deno/linux-x64-glibc/deno"), "run", "--allow-net", "--no-prompt"],
  Bun: [at("node_modules/@oven/bun-linux-x64/bin/bun"), "run"],
};

for (const [name, [program, ...args]] of Object.entries(runtimes)) {
  const skip = !existsSync(program) && "it isn't installed";
  test(`${name}: nothing is lost or doubled`, { skip, timeout: 60_000 }, async (t) => {
    const server = await serve(["a"], 1e6);
    t.after(server.close);
    const wire = await line(server.port, 5_000);
    t.after(wire.close);
    const told = new Promise((resolve, reject) => {
      execFile(program, [...args, at("guest.js"), wire.port], { timeout: 50_000 }, (error, out, errors) => {
        if (error) reject(new Error(`${error.message}\n${errors}`));
        else resolve(JSON.parse(out));
      });
    });

    let sent = 0;
    let over = false;
    told.catch(() => {}).then(() => (over = true));
    while (wire.cuts < 30 && !over) {
      await new Promise((later) => setTimeout(later, 1));
      for (let i = 0; i < 5; i++) server.rooms.get("a").publish(`a ${++sent}`);
    }
    wire.mended = true;
    server.rooms.get("a").publish(`a ${++sent} last`);
    const { resumed, resets, ...account } = await told;
    assert.deepEqual(account, { faults: [], at: sent, gaps: 0 });
    assert.ok(resets >= 1 && resets <= 5, `${resets}`); // cut before its position begins, it begins anew
    assert.ok(resumed > 5);
    t.diagnostic(`${wire.cuts} cuts, ${sent} messages, ${resumed} times resumed`);
  });
}
