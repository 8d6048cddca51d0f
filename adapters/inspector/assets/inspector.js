"use strict";
// The page shows what the server reports once a second, and tells it by the WebSocket what to report. Names
// come from strangers: they only ever become text.

const $ = id => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const expired = 4401, wentHidden = 30_000;

let socket = null, failures = 0, report = null, pending = null, retry = 0, hiding = 0;

// Elements

function element(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

// setText leaves what is the same alone, so that a selection or a screen reader isn't disturbed.
function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// setName shows a name with its invisible and reordering characters spelled out.
function setName(e, name) {
  if (e.title === name) return;
  e.title = name;
  const odd = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u3164\u115f\u1160]/gu;
  let from = 0;
  const parts = [];
  for (const m of name.matchAll(odd)) {
    const code = m[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(name.slice(from, m.index), element("span", "odd", "U+" + code));
    from = m.index + m[0].length;
  }
  e.replaceChildren(...parts, name.slice(from));
}

function named(tag, className, name) {
  const e = element(tag, className);
  setName(e, name);
  return e;
}

// sync makes the children those of the items, keeps the elements of those that stay, and the focus.
function sync(parent, items, key, create, update) {
  const focused = document.activeElement;
  const old = new Map([...parent.children].map(e => [e.key, e]));
  items.forEach((item, i) => {
    const k = key(item);
    const e = old.get(k) ?? create(item);
    e.key = k;
    old.delete(k);
    update(e, item);
    if (parent.children[i] !== e) parent.insertBefore(e, parent.children[i] ?? null);
  });
  for (const e of old.values()) e.remove();
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function bytes(n) {
  for (const unit of ["B", "KB", "MB", "GB"]) {
    if (n < 1000 || unit === "GB") return (n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)) + " " + unit;
    n /= 1000;
  }
}

const many = (n, noun) => `${number.format(n)} ${noun}${n === 1 ? "" : "s"}`;

// What is looked at stands behind the # of the address, so that it can be linked to and gone back from.

function look() {
  const q = new URLSearchParams(location.hash.slice(1));
  return {
    search: q.get("search") ?? "", page: Number(q.get("page")) || 1,
    room: q.get("room") ?? "", membersPage: Number(q.get("membersPage")) || 1,
  };
}

function link(changes) {
  const all = { ...look(), ...changes };
  const q = new URLSearchParams(Object.entries(all).filter(([, v]) => v !== "" && v !== 1));
  return "#" + q;
}

function send(message) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

function show(changes) {
  history.replaceState(null, "", link(changes));
  send({ look: look() });
}

// Figures

const peak = values => number.format(Math.max(...(values ?? []), 0));

function showFigures() {
  const { rates, totals } = report;
  setText($("conns"), number.format(report.conns));
  setText($("conns-sub"), many(report.rooms, "room"));
  for (const name of ["received", "sent"]) {
    setText($(name), rates ? number.format(rates[name]) : "–");
    setText($(name + "-sub"), rates ? `${bytes(rates[name + "Bytes"])}/s · peak ${peak(report.history[name])}` : "\u00a0");
  }
  setText($("queued"), number.format(report.queued.messages));
  setText($("queued-sub"), `${bytes(report.queued.bytes)} · peak ${peak(report.history?.queued)}`);
  setText($("dropped-count"), number.format(totals.dropped));
  for (const svg of document.querySelectorAll(".spark")) showSpark(svg, report.history?.[svg.dataset.series] ?? []);
  showCauses("ended", report.ended);
  showCauses("refused", report.refused);
}

function showSpark(svg, values) {
  if (!svg.firstChild) {
    for (const name of ["area", "line"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
  }
  const top = Math.max(1, ...values);
  const step = 59 / (values.length - 1); // what there is fills the width
  const points = values.map((v, i) => `${(step * i).toFixed(2)},${(38 - v / top * 35).toFixed(2)}`);
  const line = points.length > 1 ? "M" + points.join("L") : "";
  svg.lastChild.setAttribute("d", line);
  svg.firstChild.setAttribute("d", line && `${line}L59,40L0,40Z`);
}

function showCauses(id, sums) {
  const list = Object.entries(sums ?? {}).sort((a, b) => b[1] - a[1]);
  const all = list.reduce((sum, [, n]) => sum + n, 0);
  setText($(id + "-count"), number.format(all));
  const usual = ["peer", "closed", "shutdown"];
  sync($(id), list, ([cause]) => cause,
    ([cause]) => element("li", "", element("span", "", cause.replaceAll("_", " ")),
      element("span", usual.includes(cause) ? "bar" : "bar bad", element("i")), element("span")),
    (li, [, n]) => {
      li.children[1].firstChild.style.width = 100 * n / all + "%";
      setText(li.children[2], number.format(n));
    });
}

// Lists

function showQueued(e, queued) {
  if (!e.firstChild) e.append(element("span"), element("span", "bytes quiet"));
  setText(e.firstChild, number.format(queued.messages));
  setText(e.lastChild, queued.messages ? " · " + bytes(queued.bytes) : "");
  e.classList.toggle("quiet", queued.messages === 0);
}

function showRooms(view) {
  $("rooms").hidden = view.room !== "";
  if (view.room !== "") return;
  if (document.activeElement !== $("search") && $("search").value !== view.search) $("search").value = view.search;
  setText($("rooms-count"), number.format(report.found.total));
  sync($("rooms-rows"), report.found.rows, room => room.name,
    room => element("tr", "", element("td", "", named("a", "", room.name)), element("td", "number"), element("td", "number")),
    (tr, room) => {
      tr.firstChild.firstChild.href = link({ room: room.name, membersPage: 1 });
      setText(tr.children[1], number.format(room.members));
      showQueued(tr.children[2], room.queued);
    });
  $("rooms-empty").hidden = report.found.total > 0;
  setText($("rooms-empty"), view.search ? "No room has that in its name." : "There are no rooms.");
  showPager($("rooms-pager"), report.found, page => show({ page }));
}

let shownRoom = "";

function showMembers(view) {
  const list = report.members, room = view.room;
  $("members").hidden = room === "" && (view.search === "" || list.total === 0);
  $("back").hidden = room === "";
  $("back").href = link({ room: "", membersPage: 1 });
  if (room) setName($("members-name"), room);
  else { $("members-name").title = ""; setText($("members-name"), "Connections found"); }
  setText($("members-count"), number.format(list.total));
  $("room-actions").hidden = !report.actions || room === "" || list.total === 0;
  sync($("members-rows"), list.rows, m => m.id, createMember, (tr, m) => {
    showMember(tr.firstChild, m, room === "");
    showQueued(tr.children[1], m.queued);
    tr.lastChild.firstChild.hidden = !report.actions;
  });
  $("members-empty").hidden = list.total > 0;
  setText($("members-empty"), "Nobody is here now.");
  showPager($("members-pager"), list, membersPage => show({ membersPage }));
  if (room !== shownRoom) { // the link that had the focus is hidden now
    shownRoom = room;
    $(room ? "members-title" : "search").focus({ preventScroll: true });
    scrollTo(0, Math.min(scrollY, document.querySelector(".columns").offsetTop));
  }
}

function createMember(m) {
  const kick = element("button", "danger", "Kick…");
  kick.type = "button";
  kick.setAttribute("aria-label", `Kick ${m.label || m.id}…`);
  kick.onclick = () => askKick(m);
  return element("tr", "", element("td", "", element("bdi", "name"), element("span", "where")), element("td", "number"), element("td", "act", kick));
}

// showMember names a connection by its label, if it has one, and says where it is.
function showMember(e, m, withRoom) {
  const [name, where] = e.children;
  name.classList.toggle("id", !m.label);
  setName(name, m.label || m.id);
  setName(where, [m.address, m.label && m.id, withRoom && m.room].filter(Boolean).join(" · "));
}

function showSlowest() {
  sync($("slowest"), report.slowest, m => m.id,
    () => element("li", "", element("div", "", element("bdi", "name"), element("a", "where")),
      element("div", "amount", element("span"), element("small"))),
    (li, m) => {
      const [name, where] = li.firstChild.children;
      name.classList.toggle("id", !m.label);
      setName(name, m.label || m.id);
      setName(where, m.room);
      where.href = link({ room: m.room, membersPage: 1 });
      setText(li.lastChild.firstChild, many(m.queued.messages, "message"));
      setText(li.lastChild.lastChild, bytes(m.queued.bytes));
    });
  $("slowest-empty").hidden = report.slowest.length > 0;
}

function showPager(nav, list, go) {
  nav.hidden = list.pages < 2;
  if (!nav.firstChild) {
    const button = (text, label) => {
      const b = element("button", "", text);
      b.type = "button";
      b.setAttribute("aria-label", label);
      return b;
    };
    nav.append(element("span"), button("‹", "Previous page"), button("›", "Next page"));
  }
  const [where, previous, next] = nav.children;
  setText(where, `Page ${number.format(list.page)} of ${number.format(list.pages)}`);
  previous.disabled = list.page <= 1;
  next.disabled = list.page >= list.pages;
  previous.onclick = () => go(list.page - 1);
  next.onclick = () => go(list.page + 1);
}

// Events

const nouns = {
  opened: ["connection opened", "connections opened"], ended: ["connection ended", "connections ended"],
  room: ["new room", "new rooms"], empty: ["room emptied", "rooms emptied"],
  brief: ["connection came and went", "connections came and went"],
  dropped: ["message dropped", "messages dropped"], refused: ["request refused", "requests refused"],
};

function describe(e) {
  const who = () => named("b", "", e.label || e.conn), room = () => named("b", "", e.room);
  const aside = text => text ? [" ", named("em", "", text)] : [];
  if (e.kind === "action") {
    const target = e.conn ? [": ", named("b", "id", e.conn)] : e.room ? [" in ", room()] : [];
    return ["Inspector", ...target, " ", ...aside(e.detail)];
  }
  if (e.count > 1 || ["brief", "dropped", "refused"].includes(e.kind)) {
    return [`${number.format(e.count)} ${nouns[e.kind][e.count === 1 ? 0 : 1]}`, ...aside(e.detail)];
  }
  switch (e.kind) {
    case "opened": return [who(), " joined ", room(), ...aside(e.detail)];
    case "ended": return [who(), " left ", room(), ...aside(e.detail)];
    case "room": return ["New room ", room()];
    default: return ["Nobody is left in ", room()];
  }
}

function showEvents() {
  const list = report.events ?? [];
  const seen = new Map(); // alike events of one moment
  sync($("events"), list, e => {
    const k = JSON.stringify(e), n = seen.get(k) ?? 0;
    seen.set(k, n + 1);
    return k + n;
  }, e => {
    const time = element("time", "", clock.format(new Date(e.at)));
    time.dateTime = e.at;
    return element("li", "", time, element("i", e.kind), element("span", "", ...describe(e)));
  }, () => {});
  $("events").hidden = list.length === 0;
  $("events-empty").hidden = list.length > 0;
}

function showAll() {
  const { view } = report;
  showFigures();
  if (view.room === look().room) { // else it crossed with our wish for another one
    showRooms(view);
    showMembers(view);
  }
  showSlowest();
  showEvents();
  $("notice-all").hidden = !report.actions;
  $("read-only").hidden = report.actions;
}

// Actions

function ask({ title, about, confirm, danger, code, textLabel, textMax, textRequired, message }) {
  setText($("dialog-title"), title);
  $("dialog-about").replaceChildren(...about);
  setText($("confirm"), confirm);
  $("confirm").className = danger ? "main danger" : "main";
  $("code-field").hidden = $("code").disabled = !code;
  $("code").value = code ?? "";
  setText($("text-label"), textLabel);
  $("text").value = "";
  $("text").maxLength = textMax;
  $("text").required = textRequired;
  $("dialog-error").hidden = true;
  $("confirm").disabled = false;
  pending = message;
  $("dialog").showModal();
  $(textRequired ? "text" : "cancel").focus();
}

const closing = { confirm: "Close", danger: true, code: 1008, textLabel: "Reason, which the client is told (optional)", textMax: 123, textRequired: false };

function askKick(m) {
  ask({
    ...closing, title: "Kick this connection?", confirm: "Kick", message: { do: "kick", conn: m.id },
    about: [named("b", m.label ? "" : "id", m.label || m.id), ", from ", named("b", "", m.address), ", in ", named("b", "", m.room), ". It may connect again."],
  });
}

function askClose() {
  const room = look().room;
  ask({
    ...closing, title: "Close this room?", confirm: "Close room", message: { do: "close", room },
    about: [`Ends all ${many(report.members.total, "connection")} in `, named("b", "", room), ". They may connect again."],
  });
}

function askNotice(room) {
  const to = room ? [`the ${many(report.members.total, "member")} of `, named("b", "", room)] : [`all ${many(report.conns, "connection")}`];
  ask({
    title: "Send a notice?", confirm: "Send", textLabel: "Text message, sent as it is", textMax: 4000, textRequired: true,
    about: ["Goes to ", ...to, ". Clients that expect JSON need JSON."], message: { do: "notice", room },
  });
}

function act() {
  const message = { ...pending, text: $("text").value };
  if (!$("code").disabled) message.code = Number($("code").value);
  if (send(message)) $("confirm").disabled = true;
  else fail("Not connected.");
}

function fail(text) {
  $("confirm").disabled = false;
  $("dialog-error").hidden = false;
  setText($("dialog-error"), text);
}

let toasting = 0;

function showAnswer({ done, failed }) {
  if (failed) return fail(failed[0].toUpperCase() + failed.slice(1) + ".");
  $("dialog").close();
  setText($("toast"), done[0].toUpperCase() + done.slice(1) + ".");
  $("toast").hidden = false;
  clearTimeout(toasting);
  toasting = setTimeout(() => { $("toast").hidden = true; }, 4000);
}

// The connection

function status(state, text) {
  $("status").dataset.state = state;
  setText($("status"), text);
  document.querySelector("main").classList.toggle("stale", state !== "live" && report !== null);
}

function connect() {
  clearTimeout(retry);
  const url = new URL("live", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  socket = new WebSocket(url);
  socket.onopen = () => {
    failures = 0;
    send({ look: look() });
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (!message.at) return showAnswer(message);
    report = message;
    showAll();
    status("live", "Live");
  };
  socket.onclose = ({ code }) => {
    socket = null;
    if ($("dialog").open && $("confirm").disabled) fail("The connection was lost; see whether it was done.");
    if (code === expired) return connect();
    if (document.hidden && code === 1000) return;
    reconnect();
  };
}

async function reconnect() {
  status("wait", "Reconnecting…");
  retry = setTimeout(connect, Math.min(15_000, 500 * 2 ** failures++) * (0.75 + Math.random() / 2));
  if (failures < 2) return;
  try { // a browser doesn't tell why a WebSocket is refused
    const answer = await fetch("stats.json", { redirect: "manual" });
    if (!answer.ok && answer.status < 500) status("off", "Signed out. Reload the page.");
  } catch { /* the server is away */ }
}

document.addEventListener("visibilitychange", () => { // nobody looks at a hidden page
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => { clearTimeout(retry); socket?.close(1000); }, wentHidden);
  else if (!socket) connect();
});

let typing = 0;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => show({ search: $("search").value.trim(), page: 1, membersPage: 1 }), 150);
});

addEventListener("hashchange", () => {
  send({ look: look() });
});

$("notice-all").onclick = () => askNotice("");
$("notice-room").onclick = () => askNotice(look().room);
$("close-room").onclick = askClose;
$("cancel").onclick = () => $("dialog").close();
$("dialog-form").addEventListener("submit", e => { e.preventDefault(); act(); });

connect();
