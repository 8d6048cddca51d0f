// The script of the clients that have the browser's interface.

const encode = (text) => new TextEncoder().encode(text)

function* script() {
  for (const n of [1, 125, 126, 65535, 65536, 1 << 20]) {
    const text = '0123456789abcdef'.repeat(n / 16 + 1).slice(0, n)
    yield [text]
    yield [encode(text).map((b) => (b === 0x30 ? 0xff : b))]
  }
  yield ['κόσμε', '', ' ', '😀']
  yield [Uint8Array.of(0, 0xfe), Uint8Array.of(), Uint8Array.of(0xff)]
}

function join(parts) {
  if (parts.length === 1) return parts[0]
  return typeof parts[0] === 'string' ? parts.join('') : Uint8Array.from(parts.flatMap((part) => [...part]))
}

function same(a, b) {
  if (typeof a === 'string' || typeof b === 'string') return a === b
  const bytes = new Uint8Array(b)
  return a.length === bytes.length && a.every((value, i) => value === bytes[i])
}

const next = (ws, type) =>
  new Promise((resolve, reject) => {
    ws.onmessage = ws.onopen = ws.onclose = (event) =>
      event.type === type ? resolve(event) : reject(new Error(`${event.type} ${event.code ?? ''}, waiting for ${type}`))
  })

// run goes through the script with a WebSocket that is connecting. send sends a message in fragments
// where the client can. It throws where something isn't as it should be.
export async function run(ws, extension, end, send = (parts) => ws.send(join(parts))) {
  ws.binaryType = 'arraybuffer'
  await next(ws, 'open')
  if (!String(ws.extensions).startsWith(extension)) throw new Error(`extensions ${ws.extensions}`)
  for (const parts of script()) {
    send(parts)
    const { data } = await next(ws, 'message')
    const message = join(parts)
    if (!same(message, data)) throw new Error(`a message of ${message.length} came back otherwise`)
  }
  if (end === 'abrupt') return
  ws.close(1000, 'done')
  const closed = await next(ws, 'close')
  if (closed.code !== 1000 || !closed.wasClean) throw new Error(`closed with ${closed.code}`)
}

// program is run for a program of its own, which ends at once, whatever is open.
export async function program(connect) {
  const [url, extension, end] = process.argv.slice(2)
  const [ws, send] = connect(url)
  await run(ws, extension, end, send)
  process.exit(0)
}
