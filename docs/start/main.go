package main

import (
	"io"
	"log"
	"net/http"

	"github.com/wsroom/wsroom"
)

const page = `<!doctype html><meta charset="utf-8"><title>Chat</title>
<form><input autofocus autocomplete="off" placeholder="Say something"></form><ul></ul>
<script>
const ws = new WebSocket(location.origin.replace("http", "ws") + "/chat/general")
ws.onmessage = e => document.querySelector("ul").append(Object.assign(document.createElement("li"), {textContent: e.data}))
document.forms[0].onsubmit = e => { e.preventDefault(); ws.send(e.target[0].value); e.target.reset() }
</script>`

func main() {
	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	}))
	http.Handle("GET /chat/{room}", hub)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, page) })
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
