import { $, copy, hue, length, make, plain, reasonOf, socketURL, StateLine, storage } from "./page.js";
import { Socket } from "./wsroom.js";

const limit = { text: 1000, name: 32, rows: 500, outbox: 50, rooms: 8 };
const grace = 4_000; // ms; who is back by then never left,
const restart = 30_000; // and after a restart people take longer
const minute = (id) => Math.floor(id / 60e6);
const together = 5 * 60e6; // µs between the messages of one group

const browser = storage(() => localStorage, "chat");
const tab = storage(() => sessionStorage, "chat");

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

const me = { name: browser.get("name", ""), secret: browser.get("me", "") || random() };
browser.set("me", me.secret);

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const list = new Intl.ListFormat("en");

// linked appends text, with its web addresses as links.
function linked(parent, text) {
  for (const [i, part] of text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?')\]])/).entries()) {
    if (i % 2 === 0) {
      parent.append(part);
      continue;
    }
    const a = make("a", "", part);
    a.href = part;
    a.target = "_blank";
    a.rel = "noopener noreferrer nofollow ugc";
    parent.append(a);
  }
}

function copyLink(name, button) {
  const link = new URL(path([name]), location).href;
  copy(link, button, () => prompt("The link to this room:", link));
}

class Room {
  unread = 0;
  inView = true;

  #you = "";
  #ready = false; // we are in the room as it is now, so what we send is heard
  #last = 0; // the newest event that is shown
  #lastText = 0;
  #told; // the minute that the newest message is of: each is told once
  #people = new Map(); // by whom: {name, conns, timer}
  #outbox;
  #stick = true; // at the bottom, and to stay there
  #line;
  #socket;
  #why; // it is in its state
  #resized;

  constructor(name) {
    this.name = name;
    this.section = $("#room-template").content.cloneNode(true).firstElementChild;
    this.tab = make("button");
    this.#outbox = tab.get(`outbox.${name}`, []);
    this.#build();
    for (const item of this.#outbox) this.#queue(item);
    this.#socket = new Socket(() => this.#url(), {
      onmessage: (data) => this.#event(JSON.parse(data)),
      onroom: (_, resumed) => resumed && this.#begin(), // otherwise a hello comes
      ongap: () => this.#gap(),
      onstate: (_, why) => {
        this.#why = why;
        this.#state();
      },
    });
    this.#state();
  }

  #url() {
    return socketURL(`/ws/${encodeURIComponent(this.name)}`, { name: me.name, me: me.secret });
  }

  // connect comes anew, with the name that is ours now.
  connect() {
    this.#socket.close();
    this.#socket.open();
  }

  close() {
    this.#socket.close();
    this.#resized.disconnect();
    this.#line.stop();
    for (const p of this.#people.values()) clearTimeout(p.timer);
    this.section.remove();
    this.tab.remove();
  }

  get stopped() {
    return this.#socket.state === "stopped";
  }

  get unsent() {
    return this.#outbox.length;
  }

  focus() {
    this.el.text.focus({ preventScroll: true });
  }

  // ---- the page's side

  #build() {
    const at = (selector) => $(selector, this.section);
    this.el = {
      count: at(".count"), number: at(".number"), spoken: at(".spoken"), people: at(".people"),
      scroll: at(".scroll"), empty: at(".empty"), messages: at(".messages"), outbox: at(".outbox"), pill: at(".pill"),
      form: at(".composer"), text: at("textarea"), send: at(".send"), note: at(".note"), left: at(".left"),
    };
    const { el, name } = this;
    this.section.setAttribute("aria-label", `Room ${name}`);
    at("h2 bdi").textContent = name;
    at(".leave .hidden-text").textContent = `Close ${name}`;
    at(".leave").onclick = () => leave(name);
    for (const button of this.section.querySelectorAll(".copy")) button.onclick = () => copyLink(name, button);
    el.scroll.setAttribute("aria-label", `Messages in ${name}`);
    el.text.setAttribute("aria-label", `Message to ${name}`);
    el.text.placeholder = "Write a message";
    el.text.value = tab.get(`draft.${name}`, "");
    this.#line = new StateLine(at(".state"), () => (this.#refused ? askName(me.name, reasonOf(this.#why)) : this.#socket.open()));

    this.tab.type = "button";
    this.tab.append(make("bdi", "", name), make("span", "badge"));
    this.tab.onclick = () => reveal(this);

    const toggle = (open) => {
      el.count.setAttribute("aria-expanded", open);
      el.people.classList.toggle("open", open);
    };
    el.count.onclick = () => toggle(!el.people.classList.contains("open"));
    this.section.addEventListener("keydown", (e) => {
      if (e.key !== "Escape" || !el.people.classList.contains("open")) return;
      toggle(false);
      el.count.focus();
    });
    el.scroll.addEventListener("pointerdown", () => toggle(false));

    el.scroll.addEventListener("scroll", () => {
      this.#stick = el.scroll.scrollHeight - el.scroll.scrollTop - el.scroll.clientHeight < 48;
      this.look();
    }, { passive: true });
    el.pill.onclick = () => this.#toBottom();
    this.#resized = new ResizeObserver(() => {
      el.scroll.style.setProperty("--scrollbar", `${el.scroll.offsetWidth - el.scroll.clientWidth}px`);
      if (this.#stick) this.#toBottom();
    });
    this.#resized.observe(el.scroll);

    el.text.addEventListener("input", () => this.#typed());
    el.text.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.#submit();
    });
    el.send.addEventListener("pointerdown", (e) => e.preventDefault()); // keeps the phone's keyboard open
    el.form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.#submit();
    });
    requestAnimationFrame(() => this.#typed());
  }

  #toBottom() {
    this.#stick = true;
    this.el.scroll.scrollTop = this.el.scroll.scrollHeight;
    this.look();
  }

  // look counts what is on the screen as read.
  look() {
    if (this.#stick && this.inView && !document.hidden) this.unread = 0;
    this.el.pill.hidden = this.#stick || !this.unread;
    $("span", this.el.pill).textContent = this.unread === 1 ? "1 new message" : `${this.unread} new messages`;
    const badge = $(".badge", this.tab);
    badge.hidden = !this.unread;
    badge.textContent = this.unread > 99 ? "99+" : this.unread;
    badge.setAttribute("aria-label", `${this.unread} new`);
    title();
  }

  #typed() {
    const { text, send, left } = this.el;
    tab.set(`draft.${this.name}`, text.value);
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight, 168)}px`;
    const rest = limit.text - length(text.value.trim());
    left.textContent = rest < 0 ? `${-rest} too many` : rest <= 100 ? `${rest} left` : "";
    left.classList.toggle("over", rest < 0);
    text.setAttribute("aria-invalid", rest < 0);
    send.disabled = text.disabled || rest < 0 || rest === limit.text;
  }

  #submit() {
    const text = this.el.text.value.trim();
    if (!text || length(text) > limit.text || this.#outbox.length >= limit.outbox) return;
    const item = { key: random(), text, at: Date.now() };
    this.#outbox.push(item);
    this.#keepOutbox();
    this.#queue(item);
    if (this.#ready) this.#send(item);
    this.el.text.value = "";
    this.#typed();
    this.#toBottom();
  }

  // ---- the connection's side

  #send({ text, key }) {
    this.#socket.send(JSON.stringify({ text, key })); // what isn't sent stays in the outbox
  }

  #state() {
    const { state } = this.#socket;
    if (state !== "open") this.#ready = false;
    this.section.dataset.state = this.tab.dataset.state = this.#line.show(state, this.#why, this.#ready);
    this.el.text.disabled = state === "stopped"; // nothing that is written would be sent
    this.#typed();
    this.#fates();
    if (this.#refused && !nameDialog.open) askName(me.name, reasonOf(this.#why));
  }

  // refused says that the server doesn't take our name: texts that it doesn't take aren't sent.
  get #refused() {
    return this.#socket.state === "stopped" && this.#why?.code === 4400;
  }

  #event(e) {
    if (e.type === "hello") return this.#hello(e);
    if (e.id <= this.#last) return; // the hello had it already
    this.#last = e.id;
    if (e.type === "text") this.#text(e);
    if (e.type === "join") this.#join(e);
    if (e.type === "leave") this.#leave(e.by, e.conn);
    this.#census();
  }

  // hello is the room as it is now, with some of what we know already.
  #hello({ id, by, log = [], people = [] }) {
    this.#you = by;
    this.el.scroll.ariaBusy = "true";
    if (this.#lastText && !log.some((e) => e.id === this.#lastText)) {
      this.#gap();
    }
    for (const e of log) if (e.id > this.#last) this.#text(e);
    this.#last = id;
    this.el.scroll.ariaBusy = "false";

    for (const p of this.#people.values()) p.conns.clear();
    for (const e of people) this.#join(e, true);
    for (const [who, p] of this.#people) if (!p.conns.size) this.#leave(who, "", restart);
    this.#census();
    this.#begin();
  }

  #gap() {
    this.#note("gap", "You were away. Some messages may be missing here.");
  }

  // begin sends what waits. A text that the server has already counts once.
  #begin() {
    this.#ready = true;
    this.#state();
    for (const item of this.#outbox) this.#send(item);
    this.#settle();
  }

  #join({ by, conn, name: given }, silent = false) {
    const name = plain(given);
    const known = this.#people.get(by);
    const p = known ?? { name, conns: new Set() };
    this.#people.set(by, p);
    clearTimeout(p.timer);
    p.conns.add(conn);
    if (!known && !silent) this.#crowd("joined", name);
    if (p.name !== name) {
      if (by === this.#you) this.#note("renamed", "You are now ", make("bdi", "", name));
      else this.#note("renamed", make("bdi", "", p.name), " is now ", make("bdi", "", name));
      p.name = name;
    }
  }

  #leave(by, conn, wait = grace) {
    const p = this.#people.get(by);
    p?.conns.delete(conn);
    if (!p || p.conns.size) return;
    clearTimeout(p.timer);
    p.timer = setTimeout(() => {
      if (!this.#ready) return; // the next hello knows
      this.#people.delete(by);
      this.#crowd("left", p.name);
      this.#census();
    }, wait);
  }

  #census() {
    const { number, spoken, people } = this.el;
    const count = [...this.#people.values()].filter(({ conns }) => conns.size).length;
    number.textContent = count;
    spoken.textContent = count === 1 ? "1 person here" : `${count} people here`;
    $("h3", people).textContent = spoken.textContent;
    const everyone = [...this.#people].sort(([, a], [, b]) => a.name.localeCompare(b.name));
    $("ul", people).replaceChildren(...everyone.map(([by, { name, conns }]) => {
      const li = make("li", conns.size ? "" : "away");
      li.style.setProperty("--hue", hue(by));
      li.append(make("span", "dot"), make("bdi", "", name));
      if (by === this.#you) li.append(make("span", "you", "you"));
      return li;
    }));
  }

  // ---- messages

  #text(e) {
    const own = e.by === this.#you;
    if (own) this.#confirm(e.key);
    this.#day(e.id);
    const li = this.#message(e, own, this.el.messages.lastElementChild);
    this.#add(li);
    this.#lastText = e.id;
    this.#told = minute(e.id);
    if (own) return;
    this.unread++;
    this.look();
  }

  #message({ id, by, name, text }, own, previous) {
    const li = make("li", own ? "message own" : "message");
    li.by = by;
    li.at = id;
    li.style.setProperty("--hue", hue(by));
    const first = previous?.by !== by || id - previous.at > together;
    const when = new Date(id / 1000);
    li.classList.toggle("first", first);
    const author = make("bdi", own || !first ? "hidden-text" : "author", own ? "You" : plain(name));
    const bubble = make("div", "bubble");
    bubble.dir = "auto";
    const said = make("span", "said");
    linked(said, text);
    const time = make("time", "", clock.format(when));
    time.dateTime = when.toISOString();
    time.dir = "auto";
    bubble.title = full.format(when);
    bubble.append(said);
    if (![this.#told, minute(previous?.at)].includes(minute(id))) bubble.append(time);
    li.append(author, bubble);
    return li;
  }

  #day(id) {
    const day = calendar.format(new Date(id / 1000));
    if (this.day === day) return;
    this.day = day;
    this.#add(make("li", "day", day));
  }

  // note tells what isn't a message.
  #note(kind, ...content) {
    const li = make("li", `note ${kind}`);
    li.append(...content);
    this.#add(li);
    return li;
  }

  // crowd puts those who come, or go, one after the other into one note.
  #crowd(kind, name) {
    const last = this.el.messages.lastElementChild;
    const li = last?.classList.contains(kind) ? last : this.#note(kind);
    li.names = [...(li.names ?? []), name];
    const more = li.names.length - 3;
    const names = more > 1 ? [...li.names.slice(0, 3), `${more} others`] : li.names;
    const parts = list.formatToParts(names).map(({ type, value }) => (type === "element" ? make("bdi", "", value) : value));
    li.replaceChildren(...parts, ` ${kind}`);
    this.#settle();
  }

  #add(li) {
    const { messages } = this.el;
    messages.append(li);
    if (this.#stick) while (messages.childElementCount > limit.rows) messages.firstElementChild.remove();
    this.#settle();
  }

  #settle() {
    this.el.empty.hidden = !this.#ready || this.el.messages.childElementCount + this.#outbox.length > 0;
    if (this.#stick) this.#toBottom();
  }

  // ---- what isn't sent yet

  #keepOutbox() {
    tab.set(`outbox.${this.name}`, this.#outbox);
  }

  #queue(item) {
    const { outbox, messages } = this.el;
    const li = this.#message({ id: item.at * 1000, by: this.#you || "0", text: item.text }, true, outbox.lastElementChild ?? messages.lastElementChild);
    li.key = item.key;
    li.classList.add("pending");
    const fate = make("p", "fate");
    const discard = make("button", "", "Discard");
    discard.type = "button";
    discard.onclick = () => {
      this.#confirm(item.key);
      this.#settle();
      this.focus();
    };
    fate.append(make("span"), discard);
    li.append(fate);
    outbox.append(li);
    this.#fates();
    this.#settle();
    setTimeout(() => {
      li.classList.add("late");
      this.#settle();
    }, 1000);
  }

  #fates() {
    for (const li of this.el.outbox.children) {
      $(".fate span", li).textContent = this.#ready ? "Sending…" : "Not sent yet";
      $(".fate button", li).hidden = this.#ready;
    }
    const met = this.#last || this.#outbox.length; // a page that opens needs no explanation
    this.el.note.textContent = this.#socket?.state === "stopped" ? reasonOf(this.#why)
      : this.#ready || !met ? ""
      : this.#outbox.length < limit.outbox ? "Messages wait until the connection is back."
      : "Too many messages are waiting.";
  }

  #confirm(key) {
    this.#outbox = this.#outbox.filter((item) => item.key !== key);
    this.#keepOutbox();
    for (const li of [...this.el.outbox.children]) if (li.key === key) li.remove();
  }
}

// ---- rooms of this page: the URL names them, /r/general+design

const rooms = new Map();
const stage = $("#rooms");
const valid = /^[\p{L}\p{M}\p{N}_-]{1,32}$/u;
const normal = (name) => name.trim().replace(/^#/, "").normalize("NFC").toLowerCase().replace(/\s+/g, "-");
const path = (names) => `/r/${names.map(encodeURIComponent).join("+")}`;

function named() {
  const parts = location.pathname.replace(/^\/r\//, "").split("+").map((part) => {
    try {
      return normal(decodeURIComponent(part));
    } catch {
      return "";
    }
  });
  return [...new Set(parts)].filter((name) => valid.test(name)).slice(0, limit.rooms);
}

function go(names) {
  history.pushState(null, "", names.length ? path(names) : "/r/+");
  show(names);
}

function show(names) {
  for (const [name, room] of rooms) {
    if (names.includes(name)) continue;
    room.close();
    rooms.delete(name);
  }
  for (const name of names) {
    if (rooms.has(name)) continue;
    const room = new Room(name);
    rooms.set(name, room);
    stage.append(room.section);
    $(".tabs").append(room.tab);
    onScreen.observe(room.section);
    if (me.name) room.connect();
  }
  const recent = [...names, ...browser.get("recent", [])];
  browser.set("recent", [...new Set(recent)].slice(0, 12));
  $("#nowhere").hidden = rooms.size > 0;
  stage.hidden = !rooms.size;
  title();
}

function leave(name) {
  go([...rooms.keys()].filter((other) => other !== name));
}

function reveal(room) {
  room.section.scrollIntoView({ inline: "start", block: "nearest" });
  if (matchMedia("(hover: hover)").matches) room.focus(); // no keyboard over the messages of a phone
}

const onScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const room = [...rooms.values()].find(({ section }) => section === target);
    if (!room) continue;
    room.inView = isIntersecting;
    room.tab.ariaCurrent = isIntersecting ? "true" : null;
    if (isIntersecting) {
      tab.set("active", room.name);
      room.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    room.look();
  }
}, { root: stage, threshold: 0.6 });

function title() {
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${[...rooms.keys()].join(", ") || "Chat"}`;
}

// ---- dialogs

function ask(dialog, accept) {
  const input = $("input", dialog);
  const error = $(".error", dialog);
  $("form", dialog).addEventListener("submit", (e) => {
    e.preventDefault();
    error.textContent = accept(input.value) ?? "";
    if (error.textContent) input.focus();
    else dialog.close();
  });
  $(".cancel", dialog).onclick = () => dialog.close();
  return (value, problem = "") => {
    input.value = value;
    error.textContent = problem;
    dialog.showModal();
    input.select();
  };
}

const nameDialog = $("#name-dialog");
const askName = ask(nameDialog, (value) => {
  const name = value.trim().replace(/\s+/g, " ");
  if (!/[\p{L}\p{N}\p{P}\p{S}]/u.test(name) || /\p{Cc}/u.test(name)) return "Please write a name.";
  if (length(name) > limit.name) return `That is too long by ${length(name) - limit.name}.`;
  if (name === me.name && ![...rooms.values()].some((room) => room.stopped)) return;
  browser.set("name", name);
  rename(name);
});
nameDialog.addEventListener("close", () => me.name || start()); // there is no chat without a name

function rename(name) {
  me.name = name;
  start();
  for (const room of rooms.values()) room.connect();
}

const askRoom = ask($("#room-dialog"), (value) => {
  const name = normal(value);
  if (!valid.test(name)) return "A room's name has up to 32 letters, digits, hyphens.";
  if (!rooms.has(name) && rooms.size >= limit.rooms) return `${limit.rooms} rooms are open. Close one first.`;
  enter(name);
});

function enter(name) {
  if (!rooms.has(name)) go([...rooms.keys(), name]);
  reveal(rooms.get(name));
}

function openRoom() {
  const recent = browser.get("recent", []).filter((name) => valid.test(name) && !rooms.has(name)).slice(0, 6);
  $(".recent").replaceChildren(...recent.map((name) => {
    const button = make("button", "quiet outlined", name);
    button.type = "button";
    button.onclick = () => {
      $("#room").value = name;
      $("#room-dialog form").requestSubmit();
    };
    return button;
  }));
  askRoom("");
}

// ---- start

$("#add").onclick = $("#add-first").onclick = openRoom;
$("#me").onclick = () => askName(me.name);
addEventListener("popstate", () => show(named()));
addEventListener("storage", (e) => {
  const name = browser.get("name", "");
  if (e.key === "chat.name" && name && name !== me.name) rename(name);
});
document.addEventListener("visibilitychange", () => rooms.forEach((room) => room.look()));
addEventListener("beforeunload", (e) => {
  if ([...rooms.values()].some((room) => room.unsent)) e.preventDefault();
});
visualViewport?.addEventListener("resize", () => {
  // Where the keyboard lies over the page instead of shrinking it.
  if (visualViewport.scale === 1) document.documentElement.style.setProperty("--height", `${visualViewport.height}px`);
  scrollTo(0, 0);
});

function start() {
  $("#me bdi").textContent = plain(me.name);
  $("#me").hidden = !me.name;
  $(".cancel", nameDialog).hidden = !me.name;
  if (!me.name) askName("");
}

const active = tab.get("active");
const names = named();
if (names.length) history.replaceState(null, "", path(names));
show(names);
if (rooms.has(active)) reveal(rooms.get(active));
start();
