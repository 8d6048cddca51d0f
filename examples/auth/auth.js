import { $, copy, make, reasonOf, socketURL, StateLine } from "./page.js";
import { Socket } from "./wsroom.js";

const good = 30_000; // ms that a ticket is

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const icons = {
  page: "M3.5 4.5h13v11h-13zM3.5 8h13",
  ticket: "M3 6h14v2.5a1.5 1.5 0 0 0 0 3V14H3v-2.5a1.5 1.5 0 0 0 0-3zM12 6v8",
};

let ends = 0; // when the session does
let lasts = 0; // ms from its beginning, or extension, to its end
let you = ""; // our connection's ID
let ticket = null; // {text, until, spent}
const since = new Map(); // when we first saw a connection, by its ID

// ---- what the server is asked to do

async function post(path, body) {
  try {
    const response = await fetch(path, { method: "POST", body });
    return { ok: response.ok, text: await response.text() };
  } catch {
    return { ok: false, text: "The server can't be reached." };
  }
}

$("#login-form").addEventListener("submit", async (e) => {
  e.preventDefault();
  const { ok, text } = await post("/login", new URLSearchParams(new FormData(e.target)));
  $("#error").textContent = ok ? "" : text;
  if (!ok) return $("#password").select();
  e.target.reset();
  socket.open();
});
$("#logout").onclick = () => post("/logout"); // the server closes our connection, which says the rest
$("#extend").onclick = () => post("/extend");
$("#get").onclick = async () => {
  const { ok, text } = await post("/ticket");
  if (!ok) return ($("#fate").textContent = text);
  ticket = { text, until: Date.now() + good, known: new Set(since.keys()) };
  $("#command").textContent = `npx wscat -c "${socketURL("/live", { ticket: text })}"`;
  $("#get").textContent = "Get another";
  show();
};
$("#copy").onclick = ({ currentTarget }) => copy($("#command").textContent, currentTarget, () => getSelection().selectAllChildren($("#command")));

// ---- what is shown

function view({ user, ends: end, links }) {
  if (end !== ends) lasts = end - Date.now();
  ends = end;
  $("#name").textContent = user;
  for (const id of since.keys()) if (!(id in links)) since.delete(id);
  for (const id of Object.keys(links)) if (!since.has(id)) since.set(id, Date.now());
  // A newcomer by ticket has spent ours, as far as we can tell.
  if (ticket && Object.entries(links).some(([id, by]) => by && !ticket.known.has(id))) ticket.spent = true;
  $("#links").replaceChildren(...[...since].map(([id, at]) => row(id, at, links[id])));
  show();
}

function row(id, at, byTicket) {
  const li = make("li");
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 20 20");
  icon.ariaHidden = "true";
  const path = document.createElementNS(icon.namespaceURI, "path");
  path.setAttribute("d", byTicket ? icons.ticket : icons.page);
  icon.append(path);
  const what = make("span", "what", byTicket ? "By a ticket" : id === you ? "This page" : "Another page");
  what.append(make("span", "since", `since ${clock.format(at)}`));
  li.append(icon, what, make("span", "badge", byTicket ? "ticket" : "cookie"));
  return li;
}

function show() {
  const left = Math.max(0, ends - Date.now());
  const seconds = Math.ceil(left / 1000);
  $("#left").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  $("#gauge").style.transform = `scaleX(${Math.min(1, left / lasts)})`;
  $("#home").classList.toggle("short", left < 60_000 || left < lasts / 10);

  $("#ticket").hidden = !ticket;
  if (!ticket) return ($("#fate").textContent = "");
  const rest = Math.ceil((ticket.until - Date.now()) / 1000);
  $("#ticket").classList.toggle("spent", ticket.spent || rest <= 0);
  $("#fate").textContent = ticket.spent ? "It has been used." : rest <= 0 ? "Its time is over." : `Good for ${rest} s.`;
}
setInterval(() => socket.state === "open" && show(), 250);

// ---- the connection

const socket = new Socket(socketURL("/live"), {
  onmessage(data) {
    const message = JSON.parse(data);
    if (message.you) you = message.you;
    else view(message);
  },
  onstate(state, why) {
    line.show(state, why);
    // The server says whether we are logged in; the cookie is none of a script's business.
    if (state === "stopped") {
      $("#why").textContent = why.reason === "expired" ? "Your session has ended." : reasonOf(why);
      ticket = null;
      since.clear();
    }
    document.body.classList.toggle("out", state === "stopped");
    if (state !== "open" && state !== "stopped") return;
    $("#login").hidden = state === "open";
    $("#home").hidden = state !== "open";
    if (state === "stopped") $("#user").focus();
  },
});
const line = new StateLine($("#state"), () => socket.open());
socket.open();
