import { $, copy, make, socketURL, StateLine } from "./page.js";
import { Socket } from "./wsroom.js";

const keep = 100;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function show(text) {
  const li = make("li", "card");
  const said = make("p", "", text);
  said.dir = "auto";
  li.append(make("time", "", clock.format(Date.now())), said);
  $("#news").prepend(li);
  $("#news").children[keep]?.remove();
  $("#empty").hidden = true;
}

const socket = new Socket(socketURL("/feed/news"), {
  onmessage: show,
  onstate: (state, why) => line.show(state, why),
});
const line = new StateLine($("#state"), () => socket.open());
$("#command").textContent = `curl -d 'The train is late.' ${location.origin}/publish/news`;
$("#copy").onclick = ({ currentTarget }) => copy($("#command").textContent, currentTarget, () => getSelection().selectAllChildren($("#command")));
socket.open();
