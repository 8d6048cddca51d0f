import { $, copy, hue, length, make, plain, reasonOf, releaseHue, socketURL, StateLine, storage } from "./page.js";
import { Socket } from "./wsroom.js";

const every = 50; // ms between what we send: what matters is where a cursor is, not how it got there
const idle = 15_000; // ms; after it, a person fades
const shown = 6_000; // ms that what was said stays
const limit = { name: 24, faces: 5 };

const browser = storage(() => localStorage, "presence");
const room = decodeURIComponent(location.pathname.replace(/^\/r\//, "")) || "lobby";
const board = $("#board");
const text = $("#text");

const people = new Map(); // by ID: {person, cursor, seen}
let you = "";
let name = browser.get("name", "");
if (!name) {
  const pick = (...words) => words[Math.floor(Math.random() * words.length)];
  name = `${pick("Quiet", "Amber", "Brave", "Early", "Clever", "Gentle", "Lucky", "Merry")} ${pick("Otter", "Heron", "Maple", "Comet", "Lynx", "Finch", "Cedar", "Badger")}`;
  browser.set("name", name);
}

// ---- what we send: always all of it, the latest, and at most one message every 50 ms

const mine = { at: undefined, text: "", typing: false };
let due; // a timer
let last = 0;

function changed(change) {
  Object.assign(mine, change);
  showOwn();
  due ??= setTimeout(() => {
    due = undefined;
    last = Date.now();
    socket.send(JSON.stringify(mine));
  }, Math.max(0, last + every - Date.now()));
}

function point({ clientX, clientY }) {
  const box = board.getBoundingClientRect();
  changed({ at: { x: (clientX - box.left) / box.width, y: (clientY - box.top) / box.height } });
}
board.addEventListener("pointermove", point);
board.addEventListener("pointerdown", point);

let silence; // a timer
function say(value, typing) {
  clearTimeout(silence);
  changed({ text: value, typing });
  if (value) silence = setTimeout(() => say("", false), typing ? idle : shown);
}
const clean = (value) => value.replace(/[\p{Cc}\s]+/gu, " ").trim();
text.addEventListener("input", () => {
  const value = clean(text.value);
  $(".send").disabled = !value;
  say(value, Boolean(value));
});
$("#composer").addEventListener("submit", (e) => {
  e.preventDefault();
  const value = clean(text.value);
  if (!value) return;
  text.value = "";
  $(".send").disabled = true;
  say(value, false);
});
addEventListener("keydown", (e) => {
  // Whoever types, types here.
  if (e.key.length === 1 && !e.ctrlKey && !e.metaKey && !e.altKey && document.activeElement === document.body) text.focus();
});

// ---- what we see

function newCursor() {
  const cursor = $("#cursor-template").content.cloneNode(true).firstElementChild;
  $("#cursors").append(cursor);
  return cursor;
}

const own = newCursor();
own.classList.add("own");
function showOwn() {
  own.hidden = !mine.text;
  place(own, { at: mine.at ?? { x: 0.5, y: 0.5 }, text: mine.text, typing: mine.typing });
}

function place(cursor, { at, text, typing }) {
  const { clientWidth: width, clientHeight: height } = board;
  cursor.hidden ||= !at;
  cursor.classList.toggle("speaks", Boolean(text));
  cursor.classList.toggle("typing", Boolean(typing));
  $(".said", cursor).textContent = text ?? "";
  if (!at) return;
  cursor.style.setProperty("--x", Math.round(at.x * width));
  cursor.style.setProperty("--y", Math.round(at.y * height));
  cursor.classList.toggle("left", at.x * width > width - 200);
  cursor.classList.toggle("above", at.y * height > height - 90);
  requestAnimationFrame(() => cursor.classList.add("placed")); // from now on it glides
}

function here(person) {
  if (person.id === you) return;
  const known = people.get(person.id);
  const p = known ?? { cursor: newCursor() };
  Object.assign(p, { person, seen: Date.now() });
  people.set(person.id, p);
  p.cursor.style.setProperty("--hue", hue(person.id));
  p.cursor.hidden = !person.at;
  p.cursor.classList.remove("idle");
  $(".name", p.cursor).textContent = plain(person.name);
  place(p.cursor, person);
  if (!known || known.idle) census();
  p.idle = false;
  tellTyping();
}

function gone(id) {
  people.get(id)?.cursor.remove();
  people.delete(id);
  releaseHue(id);
  tellTyping();
}

function census() {
  const faces = [...people.values()].map(({ person, idle }) => face(person, idle));
  const more = faces.length - limit.faces;
  if (more > 0) faces.splice(limit.faces, more, make("li", "face more", `+${more}`));
  $("#faces").replaceChildren(...faces.reverse());
  $("#alone").hidden = people.size > 0;
  $("#alone-title").textContent = socket.state === "open" && you ? "Nobody else is here yet" : socket.state === "connecting" ? "Connecting…" : "Not connected";
}

function face({ id, name }, idle) {
  const shownName = plain(name);
  const li = make("li", idle ? "face idle" : "face");
  const initials = shownName.split(/\s+/).filter(Boolean).slice(0, 2).map((word) => [...word][0]).join("");
  const drawn = make("bdi", "", initials.toUpperCase());
  drawn.ariaHidden = "true";
  li.append(drawn, make("span", "hidden-text", shownName));
  li.title = shownName;
  li.style.setProperty("--hue", hue(id));
  return li;
}

function tellTyping() {
  const names = [...people.values()].filter(({ person }) => person.typing).map(({ person }) => plain(person.name));
  const words = names.length > 2 ? [`${names.length} people are typing…`]
    : names.length === 2 ? [make("bdi", "", names[0]), " and ", make("bdi", "", names[1]), " are typing…"]
    : names.length ? [make("bdi", "", names[0]), " is typing…"] : [];
  $("#typing").replaceChildren(...words);
}

setInterval(() => {
  for (const p of people.values()) {
    if (p.idle || Date.now() - p.seen < idle) continue;
    p.idle = true;
    p.cursor.classList.add("idle");
    census();
  }
}, 1000);

new ResizeObserver(() => {
  showOwn();
  for (const { person, cursor } of people.values()) place(cursor, person);
}).observe(board);

// ---- the connection

const socket = new Socket(() => socketURL(`/ws/${encodeURIComponent(room)}`, { name }), {
  onmessage(data) {
    const { type, person, people: present = [] } = JSON.parse(data);
    if (type === "hello") {
      // The room as it is now: whoever isn't in it went while we were away.
      you = person.id;
      for (const id of people.keys()) if (!present.some((p) => p.id === id)) gone(id);
      present.forEach(here);
      if (mine.at || mine.text) changed({});
    }
    if (type === "here") here(person);
    if (type === "gone") gone(person.id);
    if (type !== "here") census();
  },
  onstate(state, why) {
    document.body.dataset.state = line.show(state, why);
    if (state === "stopped") askName(reasonOf(why));
    census();
  },
});
const line = new StateLine($("#state"), () => socket.open());

// ---- name, link

function askName(error = "") {
  $("#name").value = name;
  $("#name-error").textContent = error;
  if (!$("#name-dialog").open) $("#name-dialog").showModal();
  $("#name").select();
}
$("#me").onclick = () => askName();
$("#cancel").onclick = () => $("#name-dialog").close();
$("#name-dialog form").addEventListener("submit", (e) => {
  e.preventDefault();
  const value = clean($("#name").value);
  const error = !value ? "Please write a name." : length(value) > limit.name ? `That is too long by ${length(value) - limit.name}.` : "";
  $("#name-error").textContent = error;
  if (error) return;
  name = value;
  browser.set("name", name);
  $("#name-dialog").close();
  start();
});
$("#copy").onclick = ({ currentTarget }) => copy(location.href, currentTarget, () => prompt("The link to this page:", location.href));

function start() {
  $("#me bdi").textContent = plain(name);
  socket.close(); // for the name that it came with
  socket.open();
}
$("#room").textContent = room;
document.title = `${room} · Presence`;
const finger = matchMedia("(pointer: coarse)"); // it has no cursor
finger.onchange = () => (text.placeholder = text.ariaLabel = finger.matches ? "Say something" : "Say something at your cursor");
finger.onchange();
showOwn();
start();
