module github.com/wsroom/wsroom/internal/tests/soak

go 1.25.0

require (
	github.com/coder/websocket v1.8.15
	github.com/wsroom/wsroom v0.0.0
)

require github.com/go-chi/chi/v5 v5.5.0 // indirect

replace github.com/wsroom/wsroom => ../../../
