import { WebSocket } from 'ws'
import { program } from './script.mjs'

await program((url) => {
  const ws = new WebSocket(url)
  const fragments = (parts) => parts.forEach((part, i) => ws.send(part, { fin: i === parts.length - 1 }))
  return [ws, fragments]
})
