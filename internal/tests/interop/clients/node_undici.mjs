import { WebSocket } from 'undici'
import { program } from './script.mjs'

await program((url) => [new WebSocket(url)])
