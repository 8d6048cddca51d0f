// Account takes down what a client is given: messages "<room> <number>", where a room's numbers have no holes, and
// "snapshot <room> <number>", which stands for all up to that number.
export class Account {
  at = new Map(); // the last number by room
  messages = 0;
  resumed = 0;
  resets = 0;
  gaps = 0;
  #log = [];

  // handlers are options of a Socket. direct is called with each other message to this connection alone.
  handlers(direct) {
    return {
      onmessage: (data, room) => {
        const text = typeof data === "string" ? data : new TextDecoder().decode(data);
        const [kind, value, number] = text.split(" ");
        if (room !== undefined) this.#message(room, kind, Number(value));
        else if (kind === "snapshot") this.#note(value, "snapshot", Number(number));
        else direct(Number(value));
      },
      onroom: (room, resumed) => {
        resumed ? this.resumed++ : this.resets++;
        this.#note(room, resumed ? "resumed" : "reset");
      },
      ongap: (room) => {
        this.gaps++;
        this.#note(room, "gap");
      },
    };
  }

  #message(room, name, number) {
    this.messages++;
    this.#note(room, name === room ? "message" : `a message of ${name}`, number);
  }

  #note(room, kind, number) {
    this.#log.push({ room, kind, number });
    if (number !== undefined) this.at.set(room, number);
  }

  // faults are the messages that are missing without a word, that came twice, or too late, or were for others:
  // excluded has these, as "<room> <number>". Those in either may have come or not.
  faults(excluded, either = new Set()) {
    const faults = [];
    const state = new Map();
    for (const { room, kind, number } of this.#log) {
      const { last, free } = state.get(room) ?? { last: 0, free: true };
      if (kind === "reset" || kind === "gap") state.set(room, { last, free: true });
      else if (kind === "snapshot") state.set(room, { last: number, free: false });
      else if (kind === "message") {
        let next = last + 1;
        while (excluded.has(`${room} ${next}`) || (next < number && either.has(`${room} ${next}`))) next++;
        if (number <= last) faults.push(`${room} ${number} comes after ${last}`);
        else if (excluded.has(`${room} ${number}`)) faults.push(`${room} ${number} is for others`);
        else if (number !== next && !free) faults.push(`${room} ${next} is missing before ${number}`);
        state.set(room, { last: number, free: false });
      } else if (kind !== "resumed" || !state.has(room)) faults.push(`${room}: ${kind}`);
    }
    return faults;
  }
}
