import { $, hue, length, make, plain, releaseHue, socketURL, StateLine, storage } from "./page.js";
import {
  Doc, UndoManager, WebsocketProvider, applyUpdate, createAbsolutePositionFromRelativePosition,
  createRelativePositionFromTypeIndex, encodeStateAsUpdate, encodeStateVector,
} from "./yjs.js";

const limit = { name: 24, faces: 5 };
const still = 4_000; // ms after which a cursor's name fades
const every = 50; // ms between two places of our cursor

const browser = storage(() => localStorage, "collab");
if (location.pathname === "/") history.replaceState(null, "", "/d/notes");
const name = decodeURIComponent(location.pathname.replace(/^\/d\//, ""));
const field = $("#text");

const shared = new Doc();
const provider = new WebsocketProvider(socketURL("/ws").href, encodeURIComponent(name), shared, { connect: false });
const { awareness } = provider;

// ---- the text: what the field shows is a document of its own. It is behind the shared one while somebody composes a
// character, which a change of the field would interrupt.

const shown = new Doc();
const text = shown.getText("text");
const undo = new UndoManager(text, { trackedOrigins: new Set(["field"]) });
let before = ""; // what the field had
let composing = false;

shared.on("update", () => composing || catchUp());
shown.on("update", (update, origin) => origin === "shared" || applyUpdate(shared, update, "shown"));
function catchUp() {
  applyUpdate(shown, encodeStateAsUpdate(shared, encodeStateVector(shown)), "shared");
}

const isPair = (s, at) => /[\uD800-\uDBFF]/.test(s[at - 1] ?? "") && /[\uDC00-\uDFFF]/.test(s[at] ?? "");

field.addEventListener("input", () => {
  const now = field.value;
  let end = 0; // as many characters at the end are the same, and start at the start
  const most = Math.min(before.length, now.length - field.selectionEnd);
  while (end < most && before.at(-1 - end) === now.at(-1 - end)) end++;
  if (isPair(before, before.length - end) || isPair(now, now.length - end)) end--;
  let start = 0;
  while (start < Math.min(before.length, now.length) - end && before[start] === now[start]) start++;
  if (isPair(before, start) || isPair(now, start)) start--;
  shown.transact(() => {
    text.delete(start, before.length - end - start);
    text.insert(start, now.slice(start, now.length - end));
  }, "field");
  before = now;
  draw();
});

text.observe(({ delta }, { origin }) => {
  if (origin === "field") return;
  let at = 0;
  for (const { retain = 0, insert = "", delete: gone = 0 } of delta) {
    // The field must be as long as the text. It would make one character of \r\n.
    const added = typeof insert === "string" ? insert.replaceAll("\r", "␍") : "\ufffc";
    at += retain;
    if (added || gone) field.setRangeText(added, at, at + gone, "preserve");
    at += added.length;
  }
  before = field.value;
  draw();
});

field.addEventListener("compositionstart", () => (composing = true));
field.addEventListener("compositionend", () => {
  composing = false;
  catchUp();
});

// The browser's own undo would take back what others wrote.
function takeBack(event, again) {
  event.preventDefault();
  again ? undo.redo() : undo.undo();
}
field.addEventListener("beforeinput", (e) => {
  if (e.inputType.startsWith("history")) takeBack(e, e.inputType === "historyRedo");
});
field.addEventListener("keydown", (e) => {
  const key = e.key.toLowerCase();
  if ((e.ctrlKey || e.metaKey) && !e.altKey && (key === "z" || key === "y")) takeBack(e, key === "y" || e.shiftKey);
});

// ---- people: their names, colours and cursors

const me = { name: browser.get("name", "") };
if (!me.name) {
  const pick = (...words) => words[Math.floor(Math.random() * words.length)];
  me.name = `${pick("Quiet", "Amber", "Brave", "Early", "Clever", "Gentle", "Lucky", "Merry")} ${pick("Otter", "Heron", "Maple", "Comet", "Lynx", "Finch", "Cedar", "Badger")}`;
  browser.set("name", me.name);
}

const moved = new Map(); // when a cursor was moved last, by client
awareness.on("change", ({ added, updated, removed }) => {
  for (const id of [...added, ...updated]) moved.set(id, Date.now());
  for (const id of removed) {
    moved.delete(id);
    releaseHue(String(id));
  }
  draw();
});

let due; // a timer
let last = 0;
function point() {
  due ??= setTimeout(() => {
    due = undefined;
    last = Date.now();
    const at = (index) => createRelativePositionFromTypeIndex(text, index);
    const cursor = document.activeElement === field ? { anchor: at(field.selectionStart), head: at(field.selectionEnd) } : null;
    awareness.setLocalStateField("cursor", cursor);
  }, Math.max(0, last + every - Date.now()));
}
document.addEventListener("selectionchange", point);
field.addEventListener("selectionchange", point);
field.addEventListener("input", point);
field.addEventListener("focus", point);
field.addEventListener("blur", point);

// others are the other people, of whom nothing is certain.
function others() {
  const index = (position) => {
    try {
      return createAbsolutePositionFromRelativePosition(position, shown)?.index;
    } catch {}
  };
  return [...awareness.getStates()].filter(([id, state]) => id !== awareness.clientID && state?.user).map(([id, { user, cursor }]) => {
    const [anchor, head] = cursor ? [index(cursor.anchor), index(cursor.head)] : [];
    const called = plain([...String(user.name)].slice(0, limit.name).join("")).trim();
    return { id, name: called || "Somebody", hue: hue(String(id)), anchor, head };
  });
}

let drawing = false;
function draw() {
  if (!drawing) requestAnimationFrame(() => {
    drawing = false;
    const people = others();
    drawFaces(people);
    drawCursors(people.filter(({ anchor, head }) => anchor !== undefined && head !== undefined));
  });
  drawing = true;
}

function drawFaces(people) {
  const faces = people.slice(0, limit.faces).map(({ name, hue }) => {
    const face = make("li", "face", name.split(/\s+/).slice(0, 2).map((word) => [...word][0]).join(""));
    face.style.setProperty("--hue", hue);
    face.title = face.ariaLabel = name;
    return face;
  });
  if (people.length > limit.faces) faces.unshift(make("li", "face more", `+${people.length - limit.faces}`));
  $("#faces").replaceChildren(...faces);
}

function drawCursors(people) {
  const stops = new Set(people.flatMap(({ anchor, head }) => [anchor, head])).add(before.length);
  const nodes = [];
  let from = 0;
  for (const to of [...stops].sort((a, b) => a - b)) {
    const over = people.find(({ anchor, head }) => Math.min(anchor, head) <= from && to <= Math.max(anchor, head));
    const part = make("span", over ? "marked" : "", before.slice(from, to));
    part.style.setProperty("--hue", over?.hue);
    nodes.push(part, ...people.filter(({ head }) => head === to).map(caret));
    from = to;
  }
  $("#mirror").replaceChildren(...nodes, "\u200b"); // an empty last line has its height, too

  const { right } = $(".paper").getBoundingClientRect();
  for (const cursor of document.querySelectorAll(".caret")) {
    cursor.classList.toggle("left", cursor.firstChild.getBoundingClientRect().right > right);
  }
}

function caret({ id, name, hue }) {
  const cursor = make("span", "caret");
  const flag = make("bdi", "flag name", name);
  cursor.style.setProperty("--hue", hue);
  cursor.classList.toggle("still", Date.now() - moved.get(id) > still);
  cursor.append(flag);
  return cursor;
}
setInterval(draw, 1000);
addEventListener("resize", draw);

// ---- the connection

let ready = false; // the field has what the server had when we came first
provider.on("sync", (synced) => {
  if (!synced) return;
  ready = true;
  field.disabled = false;
  line.show("open");
});
provider.on("status", ({ status }) => {
  if (status === "connected") {
    awareness.setLocalState(awareness.getLocalState()); // for those to whom we had gone, it has to be newer
    line.show("open", undefined, ready);
  } else if (status === "disconnected") {
    // Those who are still there would be no news when we come back.
    for (const id of awareness.meta.keys()) if (id !== awareness.clientID) awareness.meta.delete(id);
    line.show(provider.shouldConnect ? "connecting" : "idle");
  }
});
provider.on("closed", (why) => line.show("stopped", why));
const line = new StateLine($("#state"), () => provider.connect());

$("#offline").onclick = ({ currentTarget: button }) => {
  const offline = button.getAttribute("aria-pressed") === "false";
  button.setAttribute("aria-pressed", offline);
  button.textContent = offline ? "Go online" : "Work offline";
  if (offline) provider.disconnect();
  else provider.connect();
};

// ---- name

function introduce() {
  $("#me bdi").textContent = plain(me.name);
  awareness.setLocalStateField("user", me);
}
$("#me").onclick = () => {
  $("#name").value = me.name;
  $("#name-dialog").showModal();
  $("#name").select();
};
$("#cancel").onclick = () => $("#name-dialog").close();
$("#name-dialog form").addEventListener("submit", () => {
  const value = $("#name").value.replace(/[\p{Cc}\s]+/gu, " ").trim();
  if (!value || length(value) > limit.name) return;
  me.name = value;
  browser.set("name", value);
  introduce();
});

$("#doc").textContent = name;
$("#where").textContent = `This tab is on the node at ${location.host}.`;
document.title = `${name} · Collab`;
introduce();
line.show("connecting");
provider.connect();
