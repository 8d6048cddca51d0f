import { $, hue, make, plain, reasonOf, releaseHue, socketURL, StateLine, storage } from "./page.js";
import { Socket } from "./wsroom.js";

const delays = [3, 15]; // ticks that others are shown late, so that there mostly is a place to go to
const every = 1000 / 30; // ms between what we send
const shown = 8; // players in the list

const tab = storage(() => sessionStorage, "game");
const browser = storage(() => localStorage, "game");
const room = decodeURIComponent(location.hash.slice(1)) || "lobby";
const canvas = $("#field");
const context = canvas.getContext("2d");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// A tab is a player. Its secret brings the player back, after a reload too.
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
const secret = tab.get("secret", "") || random();
tab.set("secret", secret);

const pick = (...words) => words[Math.floor(Math.random() * words.length)];
let name = browser.get("name", "") || `${pick("Quiet", "Amber", "Brave", "Early", "Clever", "Gentle", "Lucky", "Merry")} ${pick("Otter", "Heron", "Maple", "Comet", "Lynx", "Finch", "Cedar", "Badger")}`;

// ---- the world, as the server tells it

let field; // its measures; nothing is known before
let you;
let delay = delays[0];
let clock; // when tick 0 was, in ms of performance.now()
const stars = new Map(); // by ID: {at, born}
const players = new Map(); // by ID: what the server said last, with `trail`, the places to come, and where it is drawn
const sparks = []; // where a star was collected
canvas.world = { players, stars, toScreen: (at) => toScreen(at), me: () => players.get(you) }; // for the tests, and for whoever looks

function take({ tick, players: told = [], stars: moved = {}, you: mine, field: measures }) {
  const now = performance.now();
  if (mine) {
    // All there is. Who isn't in it has gone while we were away.
    [you, field] = [mine, measures];
    clock = now - (tick * 1000) / field.rate;
    for (const id of players.keys()) if (!told.some((p) => p.id === id)) remove(id);
    stars.clear();
    sent = [0, 0];
    for (const p of players.values()) p.trail = [];
  }
  // The quickest message tells the time, and others pull gently, since clocks differ.
  const late = now - (tick * 1000) / field.rate - clock;
  clock += late < 0 ? late : late * 0.01;
  delay = Math.min(Math.max(delays[0], (late * field.rate) / 1000 + 2, delay - 0.02), delays[1]);
  for (const p of told) place(p, tick);
  for (const [id, at] of Object.entries(moved)) {
    if (stars.has(id)) sparks.push({ at: stars.get(id).at, born: now });
    stars.set(id, { at, born: mine ? 0 : now });
  }
  census();
}

function place(p, tick) {
  if (p.gone) return remove(p.id);
  const known = players.get(p.id) ?? { trail: [], at: p.at, look: [0, 1] };
  const last = known.trail.at(-1);
  if (last) {
    // It stood until it went, or a slow page wasn't told of its way.
    const needed = (distance(last.at, p.at) / field.speed) * field.rate;
    if (tick - last.tick > needed + 1) known.trail.push({ tick: tick - needed - 0.5, at: last.at });
  }
  known.trail.push({ tick, at: p.at });
  if (known.trail.length > 30) known.trail.shift(); // nobody looks
  const { at: _, ...rest } = p;
  players.set(p.id, Object.assign(known, { away: false }, rest));
}

function remove(id) {
  players.delete(id);
  releaseHue(String(id));
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const between = (a, b, part) => [a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part];
const colour = (p, alpha = 1) => `oklch(${look.tone} ${hue(String(p.id))} / ${alpha})`;

// along is where a player is at a tick.
function along(trail, tick) {
  while (trail.length > 1 && trail[1].tick <= tick) trail.shift();
  const [from, to] = trail;
  if (!to || tick <= from.tick) return from.at;
  return between(from.at, to.at, (tick - from.tick) / (to.tick - from.tick));
}

let listed = "";
function census() {
  const all = [...players.values()].sort((a, b) => b.score - a.score || a.id - b.id);
  const now = JSON.stringify(all.map(({ id, name, score, away }) => [id, name, score, away]));
  if (now === listed) return;
  listed = now;
  const own = all.findIndex((p) => p.id === you);
  const first = all.slice(0, shown);
  if (own >= shown) first[shown - 1] = all[own];
  $("#scores ol").replaceChildren(...first.map((p) => {
    const li = make("li", `${p.id === you ? "you" : ""} ${p.away ? "away" : ""}`);
    li.style.setProperty("--hue", hue(String(p.id)));
    const score = make("span", "score", p.score);
    if (p.away) li.append(make("bdi", "", plain(p.name)), make("span", "hidden-text", "is away"), score);
    else li.append(make("bdi", "", plain(p.name)), score);
    return li;
  }));
  $("#scores .more").textContent = all.length > shown ? `and ${all.length - shown} more` : "";
}

// ---- where we want to go

const ways = {
  ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0],
  KeyW: [0, -1], KeyS: [0, 1], KeyA: [-1, 0], KeyD: [1, 0],
};
const held = new Set(); // keys
let pointer; // where it is held, on the screen
let sent = [0, 0];
let sentAt = 0;

addEventListener("keydown", (e) => {
  if (!ways[e.code] || e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.("input")) return;
  e.preventDefault();
  held.add(e.code);
});
addEventListener("keyup", (e) => held.delete(e.code));
const rest = () => {
  held.clear();
  pointer = undefined;
  steer();
};
addEventListener("blur", rest);
document.addEventListener("visibilitychange", rest);
const point = (e) => (pointer = [e.offsetX, e.offsetY]);
canvas.addEventListener("pointerdown", (e) => {
  canvas.setPointerCapture(e.pointerId);
  point(e);
});
canvas.addEventListener("pointermove", (e) => pointer && point(e));
for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(type, () => (pointer = undefined));
canvas.addEventListener("contextmenu", (e) => e.preventDefault());

// wanted is the direction, up to 1 long.
function wanted() {
  let want = [0, 0];
  for (const code of held) want = [want[0] + ways[code][0], want[1] + ways[code][1]];
  const me = players.get(you);
  if (pointer && me) {
    const [x, y] = toField(pointer);
    want = [(x - me.at[0]) / 60, (y - me.at[1]) / 60]; // it slows down where it is to stop
    if (Math.hypot(...want) < 0.15) want = [0, 0];
  }
  const by = Math.max(1, Math.hypot(...want));
  return [Math.round((want[0] / by) * 100) / 100, Math.round((want[1] / by) * 100) / 100];
}

function steer() {
  const want = wanted();
  const now = performance.now();
  const stop = !want[0] && !want[1];
  if (socket.state !== "open" || !field || (want[0] === sent[0] && want[1] === sent[1]) || (now - sentAt < every && !stop)) return want;
  if (socket.send(JSON.stringify(want))) {
    [sent, sentAt] = [want, now];
    if (!stop) $("#hint").classList.add("known");
  }
  return want;
}

// ---- what is drawn

let look; // the page's colours
function dress() {
  const style = getComputedStyle(document.documentElement);
  look = Object.fromEntries(["ground", "surface", "line", "text", "muted", "star", "tone"].map((key) => [key, style.getPropertyValue(`--${key}`).trim()]));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
dress();

let scale = 1;
let camera; // the place in the middle
const size = () => [canvas.clientWidth, canvas.clientHeight];
const toField = ([x, y]) => [camera[0] + (x - size()[0] / 2) / scale, camera[1] + (y - size()[1] / 2) / scale];
const toScreen = ([x, y]) => [(x - camera[0]) * scale + size()[0] / 2, (y - camera[1]) * scale + size()[1] / 2];

new ResizeObserver(() => {
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  scale = Math.min(Math.max(Math.min(...size()) / 640, 0.6), 1.3);
}).observe(canvas);

// move takes everyone to where they are now. We ourselves go at once, and let the server correct us.
function move(now, seconds, want) {
  const tick = ((now - clock) * field.rate) / 1000 - delay;
  for (const p of players.values()) {
    const before = p.at;
    if (p.id === you && !p.away) {
      const server = p.trail.at(-1).at;
      const limit = [field.width, field.height];
      p.at = p.at.map((x, i) => Math.min(Math.max(x + want[i] * field.speed * seconds, field.radius), limit[i] - field.radius));
      p.at = distance(p.at, server) > 250 ? server : between(p.at, server, 1 - Math.exp(-6 * seconds));
    } else {
      p.at = along(p.trail, tick);
    }
    const step = distance(before, p.at);
    if (step > 0.3) p.look = between(p.look, [(p.at[0] - before[0]) / step, (p.at[1] - before[1]) / step], 0.3);
  }
  const me = players.get(you);
  const target = me ? [0, 1].map((i) => {
    const all = i ? field.height : field.width;
    const half = size()[i] / scale / 2;
    return half * 2 > all + 80 ? all / 2 : Math.min(Math.max(me.at[i], half - 40), all + 40 - half);
  }) : [field.width / 2, field.height / 2];
  camera = camera && distance(camera, target) < 600 ? between(camera, target, calm.matches ? 1 : 1 - Math.exp(-8 * seconds)) : target;
}

function draw(now) {
  const ratio = devicePixelRatio;
  const [dx, dy] = toScreen([0, 0]);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = look.ground;
  context.fillRect(0, 0, ...size());
  context.setTransform(ratio * scale, 0, 0, ratio * scale, dx * ratio, dy * ratio);
  drawField();
  for (const [id, s] of stars) drawStar(s, now + id * 400);
  drawSparks(now);
  const me = players.get(you);
  for (const p of players.values()) if (p !== me) drawPlayer(p);
  if (me) drawPlayer(me, true);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const p of players.values()) drawPointer(p);
}

function drawField() {
  context.beginPath();
  context.roundRect(0, 0, field.width, field.height, 28);
  context.fillStyle = look.surface;
  context.fill();
  context.strokeStyle = look.line;
  context.lineWidth = 2;
  context.stroke();
  context.fillStyle = look.line;
  const [left, top] = toField([0, 0]);
  const [right, bottom] = toField(size());
  const grid = 40;
  for (let x = Math.max(grid, Math.ceil(left / grid) * grid); x < Math.min(field.width, right); x += grid) {
    for (let y = Math.max(grid, Math.ceil(top / grid) * grid); y < Math.min(field.height, bottom); y += grid) context.fillRect(x - 1.5, y - 1.5, 3, 3);
  }
}

function drawStar({ at: [x, y], born }, now) {
  const grown = Math.min((performance.now() - born) / 250, 1);
  const r = 15 * grown * (calm.matches ? 1 : 1 + 0.06 * Math.sin(now / 350));
  context.beginPath();
  for (let i = 0; i < 10; i++) {
    const angle = (i * Math.PI) / 5 - Math.PI / 2;
    const reach = i % 2 ? r * 0.5 : r;
    context.lineTo(x + Math.cos(angle) * reach, y + Math.sin(angle) * reach);
  }
  context.closePath();
  context.fillStyle = context.strokeStyle = look.star;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.fill();
  context.stroke();
}

function drawSparks(now) {
  while (sparks.length && now - sparks[0].born > 450) sparks.shift();
  if (calm.matches) return;
  for (const { at: [x, y], born } of sparks) {
    const part = Math.max(now - born, 0) / 450; // a frame's time may be before its messages'
    context.beginPath();
    context.arc(x, y, 14 + 34 * part, 0, 2 * Math.PI);
    context.globalAlpha = 1 - part;
    context.strokeStyle = look.star;
    context.lineWidth = 4 * (1 - part) + 1;
    context.stroke();
    context.globalAlpha = 1;
  }
}

function drawPlayer(p, own = false) {
  const [x, y] = p.at;
  const r = field.radius;
  context.globalAlpha = p.away ? 0.4 : 1;
  context.beginPath();
  context.arc(x, y, r, 0, 2 * Math.PI);
  context.fillStyle = colour(p);
  context.fill();
  if (own) {
    context.beginPath();
    context.arc(x, y, r + 5, 0, 2 * Math.PI);
    context.strokeStyle = look.text;
    context.lineWidth = 2.5;
    context.stroke();
  }
  for (const side of [-1, 1]) {
    // Its eyes are where it goes to.
    const [ex, ey] = [x + p.look[0] * 8 + side * 8, y + p.look[1] * 8 - 2];
    context.beginPath();
    context.arc(ex, ey, 5.5, 0, 2 * Math.PI);
    context.fillStyle = "#fff";
    context.fill();
    context.beginPath();
    context.arc(ex + p.look[0] * 2.2, ey + p.look[1] * 2.2, 2.8, 0, 2 * Math.PI);
    context.fillStyle = "#1c1b19";
    context.fill();
  }
  context.font = `600 ${Math.max(15, 12 / scale)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.fillStyle = context.strokeStyle = look.surface;
  context.lineWidth = 4;
  context.lineJoin = "round";
  const text = plain(p.name) + (p.away ? " (away)" : "");
  context.strokeText(text, x, y - r - 12);
  context.fillStyle = look.text;
  context.fillText(text, x, y - r - 12);
  context.globalAlpha = 1;
}

// drawPointer points to a player that is out of sight.
function drawPointer(p) {
  const [w, h] = size();
  const [x, y] = toScreen(p.at);
  const edge = 14;
  const r = field.radius * scale;
  if (x > -r && x < w + r && y > -r && y < h + r) return;
  const at = [Math.min(Math.max(x, edge), w - edge), Math.min(Math.max(y, edge), h - edge)];
  const angle = Math.atan2(y - at[1], x - at[0]);
  context.save();
  context.translate(...at);
  context.rotate(angle);
  context.beginPath();
  context.moveTo(9, 0);
  context.lineTo(-6, 8);
  context.lineTo(-6, -8);
  context.closePath();
  context.fillStyle = colour(p, p.away ? 0.4 : 1);
  context.fill();
  context.restore();
}

let drawn = 0;
function frame(now) {
  requestAnimationFrame(frame);
  const seconds = Math.min((now - drawn) / 1000, 0.1);
  drawn = now;
  if (!field) return;
  camera ??= players.get(you)?.at;
  move(now, seconds, steer());
  draw(now);
}

// ---- the connection

const base64url = (text) => btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const socket = new Socket(() => socketURL(`/ws/${encodeURIComponent(room)}`, { name }), {
  protocols: `bearer.${base64url(secret)}`,
  onmessage: (data) => take(JSON.parse(data)),
  onstate(state, why) {
    document.body.dataset.state = line.show(state, why);
    $("#notice").hidden = state !== "stopped";
    if (state === "stopped") $("#notice").textContent = reasonOf(why);
  },
});
const line = new StateLine($("#state"), () => socket.open());

function rename() {
  const value = $("#name").value.trim();
  if (value && value !== name) {
    name = value;
    browser.set("name", name);
    socket.close(); // it is the same player when it comes back
    socket.open();
  }
  $("#name").value = name;
}
$("#me").addEventListener("submit", (e) => {
  e.preventDefault();
  rename();
  $("#name").blur();
});
$("#name").addEventListener("change", rename);

addEventListener("hashchange", () => location.reload());
$("#room").textContent = room;
$("#name").value = name;
document.title = `${room} · Game`;
socket.open();
requestAnimationFrame(frame);
