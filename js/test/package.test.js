// What is published: its size, its types, its files.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { transform } from "esbuild";
import ts from "typescript";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const sizes = { "wsroom.js": 2_560, "request.js": 1_024 }; // bytes, at most

for (const [file, most] of Object.entries(sizes)) {
  test(`minified and gzipped ${file} has at most ${most} bytes`, async (t) => {
    const { code } = await transform(readFileSync(at(`../${file}`)), { minify: true, format: "esm", target: "esnext" });
    const size = gzipSync(code, { level: 9 }).length;
    t.diagnostic(`${size} bytes`);
    assert.ok(size <= most, `${size} bytes`);
  });
}

test("its types hold, strictly, for the examples", () => {
  const program = ts.createProgram([at("example.ts"), at("request.ts")], {
    strict: true,
    noEmit: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    lib: ["lib.es2022.d.ts", "lib.dom.d.ts"],
    types: [],
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
  });
  const complaints = ts.getPreEmitDiagnostics(program).map((d) => ts.flattenDiagnosticMessageText(d.messageText, "\n"));
  assert.deepEqual(complaints, []);
});

test("it depends on nothing, and publishes its own files only", () => {
  const { dependencies, files } = JSON.parse(readFileSync(at("../package.json")));
  assert.equal(dependencies, undefined);
  const pack = { cwd: at(".."), encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
  const [packed] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json"], pack));
  const published = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(published, ["LICENSE", "README.md", "package.json", ...files].sort());
  assert.equal(readFileSync(at("../LICENSE"), "utf8"), readFileSync(at("../../LICENSE"), "utf8"));
});
