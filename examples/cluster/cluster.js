import { $, make, plain, socketURL, StateLine, storage } from "./page.js";
import { Socket } from "./wsroom.js";

const keep = 200;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const tab = storage(() => sessionStorage, "cluster");
const name = tab.get("name", `Guest ${Math.floor(1000 + Math.random() * 9000)}`);
tab.set("name", name);

// badge makes the element show a node, in its colour.
function badge(element, node) {
  element.textContent = node;
  element.dataset.on = "";
  element.style.setProperty("--hue", (Number(node.match(/\d+/)?.[0] ?? 0) * 137) % 360);
  return element;
}

function add(...parts) {
  const log = $("#log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const row = make("li");
  row.append(...parts);
  log.append(row);
  log.hidden = false;
  $("#empty").hidden = true;
  if (log.children.length > keep) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function said(event) {
  const head = make("p", "head");
  const who = make("span", "name", plain(event.name));
  who.dir = "auto";
  head.append(who, badge(make("span", "node"), event.node), make("time", "", clock.format(Date.now())));
  const text = make("p", "text", event.text);
  text.dir = "auto";
  add(head, text);
}

function people(names) {
  $("#people").replaceChildren(...names.map((other) => {
    const row = make("li", other === name ? "you" : "", plain(other));
    row.dir = "auto";
    return row;
  }));
  $("#alone").textContent = names.length > 1 ? "" : "Nobody else. Who opens this page is listed here, whatever node they are on.";
}

const on = {
  hello(event) {
    badge($("#node"), event.node);
    $("#hint").replaceChildren("End it, and the tab comes back on another: ", make("code", "", `kill ${event.pid}`));
    people(event.people);
  },
  people: (event) => people(event.people),
  text: said,
  gap: () => add(make("p", "note", "Messages of other nodes may be missing here.")),
};

const socket = new Socket(socketURL("/ws", { name }), {
  onmessage(data) {
    const event = JSON.parse(data);
    on[event.type]?.(event);
  },
  onstate(state, why) {
    line.show(state, why);
    document.body.dataset.state = state;
    $("#say button").disabled = state !== "open";
    if (state !== "open") {
      $("#node").textContent = "no node";
      delete $("#node").dataset.on;
      $("#hint").textContent = "The page connects to another node as soon as there is one.";
    }
  },
});
const line = new StateLine($("#state"), () => socket.open());

$("#say").onsubmit = (event) => {
  event.preventDefault();
  if (socket.send(JSON.stringify({ text: $("#text").value }))) $("#text").value = "";
};
socket.open();
