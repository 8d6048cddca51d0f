import { $, make, socketURL, StateLine } from "./page.js";
import { Socket } from "./wsroom.js";

const most = 60_000; // ms that the chart shows; less as long as there is less,
const least = 5_000; // but not less than this
const gap = 1_000; // ms without a sample, over which no line is drawn
const calm = 5; // samples of which a point of a line is the mean

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const finest = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

const figures = [
  { name: "Requests", unit: "/s", keys: ["requests"], words: ["requests a second"], format: whole, low: 100 },
  { name: "Latency, p95", unit: "ms", keys: ["p95", "median"], words: ["95th percentile", "median"], format: fine, low: 20 },
  { name: "Failed", unit: "%", keys: ["failed"], words: ["failed requests"], format: finest, low: 1 },
  { name: "Watching now", unit: "", keys: ["watching"], words: ["pages that show this"], format: whole, low: 4 },
];

let samples = []; // of the last minute, the oldest first; calmed
let newest = []; // the last ones, as they came
let arrivals = []; // when messages came
let chosen = figures[0];
let pointed = null; // from 0 to 1, where the pointer is over the chart

// ---- data

function take(more) {
  let now = samples.at(-1)?.at ?? 0;
  for (const s of more) {
    if (s.at <= now) continue; // what we have already comes again after a reconnect
    newest = s.at - now > gap ? [s] : [...newest.slice(1 - calm), s];
    now = s.at;
    samples.push({ ...s, ...Object.fromEntries(["requests", "p95", "median", "failed"].map((key) => [key, mean(newest, key)])) });
  }
  samples = samples.filter((s) => s.at >= now - most);
  arrivals = [...arrivals, Date.now()].filter((at) => at > Date.now() - 1000);
  requestAnimationFrame(draw);
}

const mean = (some, key) => some.reduce((sum, s) => sum + s[key], 0) / some.length;

// span is how much time the lines show, from end to end.
const span = () => Math.min(most, Math.max(least, samples.at(-1).at - samples[0].at));

// ceiling is a round number at the chart's top, which four lines divide well. It stays as it is, until a line doesn't fit
// or all of it is in the lowest third.
export function ceiling(figure, peak = Math.max(...samples.flatMap((s) => figure.keys.map((key) => s[key])))) {
  if (figure.top >= peak && (figure.top <= figure.low || figure.top < 3 * peak)) return figure.top;
  const room = Math.max(figure.low, 1.2 * peak);
  const unit = 10 ** Math.floor(Math.log10(room));
  return (figure.top = unit * [1, 2, 4, 6, 8, 10].find((n) => n * unit >= room));
}

// ---- drawing

// outline is the path of a figure in a box, and the path of the area below.
function outline(key, top, width, height) {
  const now = samples.at(-1)?.at ?? 0;
  const runs = [];
  let before = -Infinity;
  for (const s of samples) {
    if (s.at - before > gap) runs.push([]);
    before = s.at;
    runs.at(-1).push([width * (1 - (now - s.at) / span()), height * (1 - s[key] / top)].map((n) => n.toFixed(1)));
  }
  return {
    line: runs.map((run) => `M${run.join("L")}`).join(""),
    area: runs.map((run) => `M${run[0][0]},${height}L${run.join("L")}L${run.at(-1)[0]},${height}Z`).join(""),
  };
}

function draw() {
  if (!samples.length || document.hidden) return;
  $("#waiting").hidden = true;
  for (const figure of figures) {
    const { tile, keys: [key], format } = figure;
    $(".number", tile).textContent = format.format(samples.at(-1)[key]);
    const { line, area } = outline(key, ceiling(figure), 100, 32);
    $(".line", tile).setAttribute("d", line);
    $(".area", tile).setAttribute("d", area);
  }
  const { clientWidth: width, clientHeight: height } = $("#plot");
  const top = ceiling(chosen);
  const chart = $("#chart");
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const first = outline(chosen.keys[0], top, width, height);
  $(".first", chart).setAttribute("d", first.line);
  $(".area", chart).setAttribute("d", first.area);
  $(".second", chart).setAttribute("d", chosen.keys[1] ? outline(chosen.keys[1], top, width, height).line : "");
  scale(top);
  dates();
  point();
  $("#note").textContent = `${whole.format(samples.at(-1).requests)} requests a second reach this page as ${arrivals.length} messages: what waits for a slow page is the latest.`;
}

let scaled = "";
function scale(top) {
  if (scaled === `${chosen.name} ${top}`) return;
  scaled = `${chosen.name} ${top}`;
  const digits = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
  $("#ticks").replaceChildren(...[1, 0.75, 0.5, 0.25, 0].map((part) => {
    const li = make("li");
    li.style.top = `${100 * (1 - part)}%`;
    li.append(make("span", "", digits.format(top * part)));
    return li;
  }));
}

function dates() {
  const labels = $("#times").children;
  [1, 0.75, 0.5, 0.25, 0].forEach((part, i) => {
    const seconds = Math.round((span() * part) / 1000);
    labels[i].textContent = i === 4 ? "now" : i === 0 ? `${seconds} s ago` : `${seconds} s`;
  });
}

function point() {
  const now = samples.at(-1)?.at ?? 0;
  const at = pointed === null || !now ? null : now - span() * (1 - pointed);
  const s = at && samples.reduce((best, s) => (Math.abs(s.at - at) < Math.abs(best.at - at) ? s : best));
  const show = Boolean(s) && Math.abs(s.at - at) < gap;
  $("#cross").hidden = !show;
  $("#readout").textContent = show
    ? `${Math.round((now - s.at) / 1000)} s ago: ${chosen.keys.map((key) => chosen.format.format(s[key])).join(" · ")} ${chosen.unit.replace("/s", "a second")}`
    : "";
  $("#cross").style.left = `${100 * (pointed ?? 0)}%`;
}

function choose(figure) {
  chosen = figure;
  for (const { tile } of figures) tile.ariaPressed = String(tile === figure.tile);
  $("#title").textContent = figure.name;
  $("#legend").replaceChildren(...figure.words.map((word) => make("span", "", word)));
  $("#chart").ariaLabel = `${figure.name} over the last minute`;
  draw();
}

for (const figure of figures) {
  const tile = (figure.tile = $("#tile-template").content.cloneNode(true).firstElementChild);
  $(".name", tile).textContent = figure.name;
  $(".unit", tile).textContent = figure.unit;
  tile.onclick = () => choose(figure);
  $("#tiles").append(tile);
}
$("#times").append(...Array.from({ length: 5 }, () => make("li")));
choose(chosen);

$("#plot").addEventListener("pointermove", ({ clientX }) => {
  const box = $("#plot").getBoundingClientRect();
  pointed = Math.min(1, Math.max(0, (clientX - box.left) / box.width));
  draw();
});
$("#plot").addEventListener("pointerleave", () => {
  pointed = null;
  draw();
});
new ResizeObserver(draw).observe($("#plot"));
document.addEventListener("visibilitychange", draw);

// ---- the connection

const socket = new Socket(socketURL("/live"), {
  onmessage: (data) => take(JSON.parse(data)),
  onstate: (state, why) => document.body.classList.toggle("stale", line.show(state, why) !== "open"),
});
const line = new StateLine($("#state"), () => socket.open());
socket.open();
