// What the examples' pages share.

export const $ = (selector, root = document) => root.querySelector(selector);

// make is an element with a text, which is never taken for HTML.
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

// Storage may be full or forbidden: then nothing is remembered.
export const storage = (area, prefix) => ({
  get(key, otherwise) {
    try {
      return JSON.parse(area().getItem(`${prefix}.${key}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(key, value) {
    try {
      area().setItem(`${prefix}.${key}`, JSON.stringify(value));
    } catch {}
  },
});

// The page's icon is its mark, too, at the beginning of its bar.
const mark = make("img", "mark");
mark.alt = "";
mark.src = $('link[rel="icon"]')?.href ?? "data:,";
$(".bar")?.prepend(mark);

// copy copies text, and says so on the button. Where that isn't allowed it calls otherwise: browsers allow it over HTTPS
// and on localhost.
export async function copy(text, button, otherwise) {
  const label = (button.dataset.label ??= button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  } catch {
    otherwise();
  }
}

export const length = (text) => [...text].length;

// plain takes the signs out of a name that turn the text around it.
export const plain = (name) => name.replace(/\p{Bidi_Control}/gu, "");

// hue gives each id a colour of its own, mostly the same on every page, until it is released. There are
// twelve that can be told apart.
const hues = new Map();
export function hue(id) {
  if (!hues.has(id)) {
    const first = [...id].reduce((h, c) => Math.imul(h ^ c.codePointAt(0), 16777619) >>> 0, 2166136261) % 12;
    const slots = Array.from({ length: 12 }, (_, i) => (first + 5 * i) % 12);
    hues.set(id, 30 * (slots.find((slot) => ![...hues.values()].includes(30 * slot)) ?? first));
  }
  return hues.get(id);
}
export const releaseHue = (id) => hues.delete(id);

// socketURL is a WebSocket's address on this page's site.
export function socketURL(path, query = {}) {
  const url = new URL(path, location);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams(query);
  return url;
}

const words = { idle: "Not connected", open: "Connected", connecting: "Connecting…", offline: "Offline", stopped: "Disconnected" };

// reasonOf is what a page says of why its socket has stopped.
export const reasonOf = ({ code, reason }) => reason || `The server closed the connection (${code}).`;

// StateLine tells of a socket's state in the element, and offers to retry.
export class StateLine {
  #element;
  #label = make("span", "label");
  #retry = make("button", "retry");
  #announce = make("span", "announce hidden-text");
  #ticker;
  #until; // when the next attempt is

  constructor(element, retry) {
    this.#element = element;
    this.#label.ariaHidden = "true";
    this.#announce.role = "status";
    this.#retry.type = "button";
    this.#retry.onclick = retry;
    element.append(make("span", "dot"), this.#label, this.#retry, this.#announce);
  }

  // show takes what onstate is given, and returns the state that it shows. A connection that is open but not ready
  // is still connecting.
  show(state, why, ready = true) {
    clearInterval(this.#ticker);
    this.#until = Date.now() + (why?.delay ?? 0);
    const shown = state === "open" && !ready ? "connecting" : state === "waiting" && !navigator.onLine ? "offline" : state;
    this.#element.dataset.state = shown;
    this.#announce.textContent = { open: "Connected", connecting: "", waiting: "Connection lost", offline: "Offline", stopped: why && reasonOf(why) }[shown] ?? "";
    this.#retry.hidden = !["waiting", "offline", "stopped"].includes(shown);
    this.#retry.textContent = shown === "stopped" ? "Try again" : "Try now";
    const tell = () => {
      this.#label.textContent = words[shown] ?? `Connecting in ${Math.ceil((this.#until - Date.now()) / 1000)} s`;
    };
    tell();
    if (shown === "waiting") this.#ticker = setInterval(tell, 250);
    return shown;
  }

  stop() {
    clearInterval(this.#ticker);
  }
}
