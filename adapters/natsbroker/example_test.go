package natsbroker_test

import (
	"log"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

type userKey struct{}

// userOf says whose request it is, as WithAuthorize or a middleware in front has noted.
func userOf(r *http.Request) string {
	user, _ := r.Context().Value(userKey{}).(string)
	return user
}

// A hub that shares its rooms, and who is in them, with the hubs of other nodes.
func Example() {
	nc, err := nats.Connect("127.0.0.1:4222", nats.MaxReconnects(-1)) // reconnect for ever
	if err != nil {
		log.Fatal(err)
	}
	broker, presence := natsbroker.New(nc), natsbroker.NewPresence(nc)

	hub := wsroom.New(
		wsroom.WithName("chat"),
		wsroom.WithBroker(broker),
		wsroom.WithIdentity(userOf),
		wsroom.WithPresenceStore(presence),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { log.Print(m.Identity, " is in ", room) }),
	)
	log.Fatal(http.ListenAndServe(":8080", hub))
}
