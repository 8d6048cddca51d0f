// htmx does the rest: this tells of the connection, and empties the field.
import { $, StateLine } from "./page.js";

const line = new StateLine($("#state"), () => location.reload());
const show = (state, why) => (document.body.dataset.state = line.show(state, why));
show("connecting");

document.body.addEventListener("htmx:ws:after:connection", () => show("open"));
document.body.addEventListener("htmx:ws:close", ({ detail: { code } }) => {
  const again = [1001, 1005, 1006, 1011, 1012, 1013, 1014].includes(code); // as the extension does
  show(again ? "connecting" : "stopped", { code, reason: "" });
});
document.body.addEventListener("htmx:ws:after:message:outgoing", ({ target }) => target.id === "add" && target.reset());
document.title = `${decodeURIComponent(location.pathname.split("/")[2])} · Board`;
