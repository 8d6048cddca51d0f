import { $, length, make, plain, StateLine, socketURL, storage } from "./page.js";

const { createClient } = globalThis.graphqlWs; // the npm package graphql-ws
const keep = 200;
const browser = storage(() => localStorage, "graphql");
const room = new URLSearchParams(location.search).get("room") || "lobby";
let name = browser.get("name", `Guest ${Math.floor(1000 + Math.random() * 9000)}`);
browser.set("name", name);

function add(className, ...parts) {
  const log = $("#log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const row = make("li", className);
  row.append(...parts);
  log.append(row);
  if (log.children.length > keep) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}
const refused = (errors) => add("refused", [errors].flat().map(({ message }) => message).join(" ") || "The connection is away.");

// ---- the connection

let client;
let turn; // the client's; one that was replaced has nothing to say any more
let wasOpen = false;

function start() {
  client?.dispose();
  wasOpen = false;
  $("#me bdi").textContent = plain(name);
  const own = (turn = {});
  client = createClient({
    url: socketURL(`/graphql/${encodeURIComponent(room)}`).href,
    connectionParams: () => ({ name }),
    lazy: false,
    keepAlive: 20_000,
    retryAttempts: Infinity,
    shouldRetry: ({ code }) => code !== 4403,
    onNonLazyError: () => {},
    on: {
      connecting: () => own === turn && show("connecting"),
      connected() {
        if (own !== turn) return;
        if (wasOpen) add("note", "Connected again. What was said meanwhile isn't here.");
        wasOpen = true;
        show("open");
      },
      closed(why) {
        if (own !== turn) return;
        const stopped = why.code >= 4400 && why.code < 4500;
        show(stopped ? "stopped" : "connecting", why);
        if (why.code === 4403) askName("The server doesn't take this name.");
      },
    },
  });
  subscribe();
}

function show(state, why) {
  line.show(state, why);
  $("#say button").disabled = $("#who").disabled = state !== "open";
}
const line = new StateLine($("#state"), start);

// ---- what this tab asks for

let unsubscribe = () => {};
function subscribe() {
  unsubscribe();
  const fields = [...$("#asks").querySelectorAll("input:checked")].map((box) => box.name);
  $("#subscription").textContent = fields.length ? `subscription {\n  said {\n    ${fields.join("\n    ")}\n  }\n}` : "nothing";
  if (!fields.length) return (unsubscribe = () => {});
  unsubscribe = client.subscribe({ query: `subscription { said { ${fields.join(" ")} } }` }, {
    next: ({ data, errors }) => {
      if (errors) return refused(errors);
      const parts = [];
      if (data.said.name !== undefined) parts.push(make("bdi", "name", plain(data.said.name)));
      if (data.said.text !== undefined) parts.push(make("span", "text", data.said.text));
      parts.forEach((part) => (part.dir = "auto"));
      add("", ...parts);
    },
    error: (errors) => Array.isArray(errors) && refused(errors),
    complete() {},
  });
}
$("#asks").onchange = subscribe;

// ask resolves with the data of a query or mutation.
const ask = (payload) => new Promise((resolve, reject) => {
  let result;
  client.subscribe(payload, { next: (r) => (result = r), error: reject, complete: () => (result?.errors ? reject(result.errors) : resolve(result?.data)) });
});

$("#say").onsubmit = async (event) => {
  event.preventDefault();
  const text = $("#text").value;
  try {
    await ask({ query: "mutation ($text: String!) { say(text: $text) { text } }", variables: { text } });
    if ($("#text").value === text) $("#text").value = "";
  } catch (errors) {
    refused(errors);
  }
};
$("#who").onclick = async () => {
  try {
    const { people } = await ask({ query: "{ people }" });
    add("note", "people: ", ...people.flatMap((other, i) => [i ? ", " : "", make("bdi", "", plain(other))]));
  } catch (errors) {
    refused(errors);
  }
};

// ---- name

function askName(error = "") {
  $("#name").value = name;
  $("#name-error").textContent = error;
  if (!$("#name-dialog").open) $("#name-dialog").showModal();
  $("#name").select();
}
$("#me").onclick = () => askName();
$("#cancel").onclick = () => $("#name-dialog").close();
$("#name-dialog form").addEventListener("submit", () => {
  const value = $("#name").value.replace(/[\p{Cc}\s]+/gu, " ").trim();
  if (!value || length(value) > 24) return;
  name = value;
  browser.set("name", name);
  start();
});

$("#room").textContent = room;
document.title = `${room} · GraphQL`;
start();
