package postgresbroker_test

import (
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
)

var _ wsroom.PresenceStore = (*postgresbroker.Presence)(nil)

func TestPresence(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	s.open(t)
	brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
		s.wipe(t)
		return brokertest.PresenceSetup{
			Open: func(t testing.TB) wsroom.PresenceStore { return s.open(t).Presence() },
		}
	})
}
