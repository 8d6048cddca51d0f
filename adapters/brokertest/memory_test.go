package brokertest_test

import (
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

func memorySetup(testing.TB) brokertest.Setup {
	server := brokertest.NewMemory()
	return brokertest.Setup{
		Open: func(testing.TB) wsroom.Broker { return server.Open() },
		Down: func(testing.TB) { server.Down() },
		Up:   func(testing.TB) { server.Up() },
		Hang: func(testing.TB) { server.Hang() }, Resume: func(testing.TB) { server.Resume() },
		Cut:  func(_ testing.TB, b wsroom.Broker) { b.(*brokertest.Node).Down() },
		Heal: func(_ testing.TB, b wsroom.Broker) { b.(*brokertest.Node).Up() },
		Wipe: func(testing.TB) { server.Wipe() },
	}
}

func TestMemory(t *testing.T) { brokertest.Run(t, memorySetup) }

func TestMemoryPresence(t *testing.T) {
	brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
		server := brokertest.NewMemory()
		return brokertest.PresenceSetup{Open: func(testing.TB) wsroom.PresenceStore { return server }}
	})
}
