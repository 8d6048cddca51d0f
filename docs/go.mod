module github.com/wsroom/wsroom/docs

go 1.25.0

require (
	github.com/go-chi/chi/v5 v5.5.0
	github.com/gorilla/websocket v1.5.3
	github.com/olahol/melody v1.4.0
	github.com/wsroom/wsroom v0.0.0
)

require github.com/coder/websocket v1.8.15

replace github.com/wsroom/wsroom => ../
