package redisbroker_test

import (
	"log"
	"net/http"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

// A hub that shares its rooms, and who is in them, with the hubs of other nodes.
func Example() {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}, DisableCache: true})
	if err != nil {
		log.Fatal(err)
	}
	broker, presence := redisbroker.New(client), redisbroker.NewPresence(client)

	hub := wsroom.New(
		wsroom.WithName("chat"),
		wsroom.WithBroker(broker),
		wsroom.WithIdentity(func(r *http.Request) string { return r.Header.Get("X-User") }),
		wsroom.WithPresenceStore(presence),
	)
	log.Fatal(http.ListenAndServe(":8080", hub))
}
