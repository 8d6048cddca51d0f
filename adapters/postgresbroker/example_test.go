package postgresbroker_test

import (
	"context"
	"log"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
)

type userKey struct{}

// userOf says whose request it is, as WithAuthorize or a middleware in front has noted.
func userOf(r *http.Request) string {
	user, _ := r.Context().Value(userKey{}).(string)
	return user
}

// A hub that shares its rooms, and who is in them, with the hubs of other nodes.
func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://localhost/app")
	if err != nil {
		log.Fatal(err)
	}
	broker, err := postgresbroker.Open(ctx, pool) // creates the schema wsroom where there is none
	if err != nil {
		log.Fatal(err)
	}
	presence := broker.Presence()

	hub := wsroom.New(
		wsroom.WithName("chat"),
		wsroom.WithBroker(broker),
		wsroom.WithIdentity(userOf),
		wsroom.WithPresenceStore(presence),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { log.Print(m.Identity, " is in ", room) }),
	)
	log.Fatal(http.ListenAndServe(":8080", hub))
}
