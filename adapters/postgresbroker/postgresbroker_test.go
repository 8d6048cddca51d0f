package postgresbroker_test

import (
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
)

var (
	_ wsroom.Broker = (*postgresbroker.Broker)(nil)
	_ wsroom.Keeper = (*postgresbroker.Broker)(nil)
)

func TestBroker(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return s.open(t) },
			Down: func(testing.TB) { s.Stop() },
			Up:   s.Start,
			Wipe: s.wipe,
		}
	})
}

// TestBrokerBehindCables: the server lives on, only the connections are gone, or hang.
func TestBrokerBehindCables(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		c := &cabled{s, map[any]*brokertest.Cable{}}
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return c.open(t) },
			Down: c.each((*brokertest.Cable).Cut), Up: c.each((*brokertest.Cable).Heal),
			Hang: c.each((*brokertest.Cable).Hang), Resume: c.each((*brokertest.Cable).Resume),
			Cut:  func(_ testing.TB, b wsroom.Broker) { c.cables[b].Cut() },
			Heal: func(_ testing.TB, b wsroom.Broker) { c.cables[b].Heal() },
			Wipe: s.wipe,
		}
	})
}
