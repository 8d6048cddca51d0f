// Loads a hub that sends what a client says to its whole room, such as the one of ../shutdown, and checks that each
// member gets each message of each other member once and in order.
//
//   k6 run -e URL=ws://localhost:8080/chat/ -e ROOMS=20 --vus 200 --duration 1m k6.js
//
// RATE is the messages a second of each client, 1 by default. A run fails if a message is lost, doubled or out of order, if
// members don't hear each other at all, if a client can't connect or is disconnected, or if more than one message in a
// hundred takes longer than SLOW ms, 500 by default. Who hears whom is known for one k6 with a constant number of VUs.
import exec from "k6/execution";
import { Counter, Rate, Trend } from "k6/metrics";
import { WebSocket } from "k6/websockets";

const url = __ENV.URL || "ws://localhost:8080/chat/";
const rooms = Number(__ENV.ROOMS || 20);
const rate = Number(__ENV.RATE || 1);
const slow = Number(__ENV.SLOW || 500);
const interval = 1000 / rate;

const received = new Counter("wsroom_received");
const lost = new Counter("wsroom_lost");
const repeated = new Counter("wsroom_out_of_order"); // a message that comes again, or after a later one
const heard = new Rate("wsroom_heard"); // of the other users of a room, those that a member has heard while it was there
const failed = new Counter("wsroom_failed"); // connections that weren't made or were ended by the other side
const latency = new Trend("wsroom_latency", true);

export const options = {
  thresholds: {
    wsroom_received: ["count>0"],
    wsroom_lost: ["count==0"],
    wsroom_out_of_order: ["count==0"],
    wsroom_heard: ["rate>0.9"], // at the beginning and at the end some come too late, or have gone
    wsroom_failed: ["count==0"],
    wsroom_latency: [`p(99)<${slow}`],
  },
};

// Each user is in one room. An iteration is a connection that stays for some seconds, so that members come and go.
export default function () {
  const me = `${exec.vu.idInTest}.${exec.vu.iterationInScenario}`;
  const ws = new WebSocket(url + "load-" + (exec.vu.idInTest % rooms));
  const last = new Map(); // the number of each sender's last message
  const due = new Map(); // when the next one of a sender is due, if it has said that there is one
  let sent = 0, leaving = false;

  ws.onopen = () => {
    const opened = Date.now();
    const timer = setInterval(() => {
      const at = Date.now(), more = at - opened + 2 * interval < 8000;
      ws.send(JSON.stringify({ from: me, n: ++sent, at, more }));
    }, interval);
    setTimeout(() => clearInterval(timer), 8000);
    setTimeout(() => { // by then its own last message has come back
      leaving = true;
      if ((last.get(me) || 0) !== sent) lost.add(sent - (last.get(me) || 0));
      for (const [from, at] of due) if (from !== me && Date.now() > at) lost.add(1);
      const users = new Set([...last.keys()].map((from) => Number(from.split(".")[0])));
      for (let id = 1; id <= exec.instance.vusInitialized; id++) {
        if (id % rooms === exec.vu.idInTest % rooms) heard.add(users.has(id));
      }
      ws.close();
    }, 10000);
  };

  ws.onmessage = (event) => {
    const { from, n, at, more } = JSON.parse(event.data);
    received.add(1);
    latency.add(Date.now() - at);
    const before = last.get(from);
    last.set(from, Math.max(n, before || 0));
    if (more) due.set(from, Date.now() + 2 * interval + slow);
    else due.delete(from);
    if (before === undefined) {
      if (from === me && n > 1) lost.add(n - 1); // of others, what was said before it came isn't for it
    } else if (n <= before) {
      repeated.add(1);
    } else if (n > before + 1) {
      lost.add(n - before - 1);
    }
  };

  ws.onerror = () => failed.add(1);
  ws.onclose = () => { if (!leaving) failed.add(1); };
}
