package redisbroker_test

import (
	"log"
	"net/http"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

type userKey struct{}

// userOf says whose request it is, as WithAuthorize or a middleware in front has noted.
func userOf(r *http.Request) string {
	user, _ := r.Context().Value(userKey{}).(string)
	return user
}

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
		wsroom.WithIdentity(userOf),
		wsroom.WithPresenceStore(presence),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { log.Print(m.Identity, " is in ", room) }),
	)
	log.Fatal(http.ListenAndServe(":8080", hub))
}
