// Says what it gets: for TestWhatAnAnswerProves.
const [name, url] = process.argv.slice(2)
const { WebSocket } = await import(name)
const ws = new WebSocket(url)
ws.onmessage = ({ data }) => ws.send('got ' + data)
