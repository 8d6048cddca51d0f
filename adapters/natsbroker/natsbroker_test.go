package natsbroker_test

import (
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

var _ wsroom.Broker = (*natsbroker.Broker)(nil)

func TestBroker(t *testing.T) {
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		s := startNATS(t)
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return natsbroker.New(connect(t, s.addr())) },
			Down: func(testing.TB) { s.stop() },
			Up:   s.start,
		}
	})
}

// TestBrokerBehindCutCable: the server lives on, only the connections are gone.
func TestBrokerBehindCutCable(t *testing.T) {
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		c := startCable(t, startNATS(t).addr())
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return natsbroker.New(connect(t, c.addr)) },
			Down: func(testing.TB) { c.set(true) },
			Up:   func(testing.TB) { c.set(false) },
		}
	})
}

// BenchmarkPublish is the time from Publish to its return.
func BenchmarkPublish(b *testing.B) {
	brokertest.BenchmarkPublish(b, natsbroker.New(connect(b, startNATS(b).addr())))
}
