module github.com/wsroom/wsroom/internal/tests/nodes

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/jackc/pgx/v5 v5.13.0
	github.com/nats-io/nats-server/v2 v2.15.2
	github.com/nats-io/nats.go v1.55.0
	github.com/redis/rueidis v1.0.79
	github.com/wsroom/wsroom v0.0.0
	github.com/wsroom/wsroom/adapters/postgresbroker v0.0.0
	github.com/wsroom/wsroom/adapters/redisbroker v0.0.0
)

require (
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

require (
	github.com/go-chi/chi/v5 v5.5.0 // indirect
	github.com/wsroom/wsroom/adapters/natsbroker v0.0.0
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/wsroom/wsroom => ../../../
	github.com/wsroom/wsroom/adapters/postgresbroker => ../../../adapters/postgresbroker
	github.com/wsroom/wsroom/adapters/redisbroker => ../../../adapters/redisbroker
)

replace github.com/wsroom/wsroom/adapters/natsbroker => ../../../adapters/natsbroker
