module github.com/wsroom/wsroom/nodes

go 1.25.0

require (
	github.com/coder/websocket v1.8.15
	github.com/redis/rueidis v1.0.79
	github.com/wsroom/wsroom v0.0.0
	github.com/wsroom/wsroom/adapters/redisbroker v0.0.0
)

require (
	github.com/go-chi/chi/v5 v5.5.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	github.com/wsroom/wsroom => ../
	github.com/wsroom/wsroom/adapters/redisbroker => ../adapters/redisbroker
)
