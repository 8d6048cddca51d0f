import { Connection } from "./connection.js";
import { $, make, socketURL, StateLine } from "./page.js";

const keep = 100;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function show(text) {
  const li = make("li");
  const said = make("p", "", text);
  said.dir = "auto";
  li.append(make("time", "", clock.format(Date.now())), said);
  $("#news").prepend(li);
  $("#news").children[keep]?.remove();
  $("#empty").hidden = true;
}

const connection = new Connection(() => socketURL("/feed/news"), {
  onmessage: show,
  onstate: () => line.show(connection),
  decode: String,
  ask: false, // the hub takes no messages
});
const line = new StateLine($("#state"), () => connection.open());
$("#command").textContent = `curl -d 'The train is late.' ${location.origin}/publish/news`;
connection.open();
