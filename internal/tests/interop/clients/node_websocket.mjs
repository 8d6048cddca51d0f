import websocket from 'websocket'
import { program } from './script.mjs'

// It sends what is longer than the threshold in fragments, and knows no extension.
await program((url) => {
  const ws = new websocket.w3cwebsocket(url, [], undefined, undefined, undefined, { fragmentationThreshold: 4096 })
  return [ws]
})
