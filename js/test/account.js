// Account follows what a client is given of rooms whose messages are "<room> <number>", numbered without holes. It
// throws if one is missing or comes twice, unless onroom or ongap has said so.
export class Account {
  at = new Map(); // the last number by room; undefined: it isn't known
  messages = 0;
  resets = 0;
  resumed = 0;
  gaps = 0;
  faults = [];
  excluded = new Set(); // "<room> <number>" that aren't for this client

  onroom(room, resumed) {
    if (resumed) {
      this.resumed++;
      if (this.at.get(room) === undefined && !this.open?.has(room)) this.faults.push(`${room}: resumed out of nothing`);
    } else {
      this.resets++;
      this.#jump(room);
    }
  }

  ongap(room) {
    this.gaps++;
    this.#jump(room);
  }

  open = new Set(); // rooms in which the next message may be any later one

  #jump(room) {
    this.open.add(room);
  }

  snapshot(room, number) {
    this.at.set(room, number);
    this.open.delete(room);
  }

  message(room, text) {
    const [name, number] = [text.split(" ")[0], Number(text.split(" ")[1])];
    this.messages++;
    if (name !== room) this.faults.push(`${text} in ${room}`);
    if (this.excluded.has(`${room} ${number}`)) this.faults.push(`${text} isn't for this client`);
    const last = this.at.get(room) ?? 0;
    let next = last + 1;
    while (this.excluded.has(`${room} ${next}`)) next++;
    if (number <= last || (number !== next && !this.open.has(room))) this.faults.push(`${room}: ${number} after ${last}`);
    this.open.delete(room);
    this.at.set(room, number);
  }
}
