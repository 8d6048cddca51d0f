// Makes ../yjs.js and the licences beside it, or writes them elsewhere: node build.mjs [FOLDER]
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const folder = process.argv[2] ?? join(here, "..");
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["bundle.js"],
  outfile: join(folder, "yjs.js"),
  bundle: true,
  minify: true,
  metafile: true,
  format: "esm",
  target: "es2022",
  banner: { js: "// Yjs and y-websocket, unchanged, from npm/bundle.js. Made by npm run build; their licences are in yjs.LICENSES." },
});

const names = Object.keys(metafile.inputs).map((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
const licences = [...new Set(names)].filter(Boolean).sort().map((name) => {
  const { version } = JSON.parse(readFileSync(join(here, "node_modules", name, "package.json")));
  return `${name} ${version}\n\n${readFileSync(join(here, "node_modules", name, "LICENSE"), "utf8").trim()}\n`;
});
writeFileSync(join(folder, "yjs.LICENSES"), licences.join("\n---\n\n"));
