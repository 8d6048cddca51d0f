package brokertest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// directBroker has the method that a Broker may have besides, and directKeeper the one of a Keeper.
type (
	directBroker interface {
		SubscribeDirect(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
	}
	directKeeper interface {
		FollowDirect(
			ctx context.Context, topic string, n int,
			deliver func(position uint64, data []byte), live func(), lost func(error),
		) (stop func(), err error)
	}
)

// The checks of SubscribeDirect and FollowDirect are those of Subscribe and Follow that are about deliveries,
// losses and stop. A deliver that waits isn't allowed there, except in those about stop.
const (
	directChecks = " AllNodesHear OneOrder SubscribedMeansDelivered StopMeansStopped StopUnderLoad SeveralSubscriptions" +
		" ManyTopics AnyData ConcurrentUse ContextEnds SubscribeWhileAway StopWhileAway LostThenDelivered EveryGapIsReported" +
		" OneNodeIsCutOff ServerHangs "
	directKeeperChecks = " OneOrder StopMeansStopped StopUnderLoad AnyData PastThenLive OnePositionForAll FollowWaitsForLive" +
		" FollowContextEnds NoSilentHole FollowerCutOff FollowWhileCutOff MuchIsMissed CutOftenWhileFollowing" +
		" TrimmedWhileCutOff WipedWhileFollowing "
)

// only returns the checks of these names.
func only(checks []check, names string) []check {
	return slices.DeleteFunc(checks, func(c check) bool { return !strings.Contains(names, " "+c.name+" ") })
}

// runDirect checks the promises of SubscribeDirect and FollowDirect.
func runDirect(t *testing.T, setup func(t testing.TB) Setup) {
	b := setup(t).Open(t)
	if _, ok := b.(directBroker); !ok {
		t.Skip("the broker has no SubscribeDirect: not checked")
	}
	for _, c := range only(append(slices.Clone(deliveryChecks), outageChecks...), directChecks) {
		t.Run(c.name, func(t *testing.T) {
			t.Log("here Subscribe is SubscribeDirect")
			c.try(t, setup(t).directly())
		})
	}

	t.Run("Keeper", func(t *testing.T) {
		if _, ok := b.(directKeeper); !ok {
			t.Skip("the broker has no FollowDirect: not checked")
		}
		for _, c := range only(allKeeperChecks(), directKeeperChecks) {
			t.Run(c.name, func(t *testing.T) {
				t.Log("here Follow is FollowDirect")
				c.try(t, setup(t).directly())
			})
		}
	})
}

// directly returns a Setup in which Subscribe and Follow are SubscribeDirect and FollowDirect.
func (s Setup) directly() Setup {
	open, cut, heal := s.Open, s.Cut, s.Heal
	s.Open = func(t testing.TB) wsroom.Broker { return &direct{open(t)} }
	if cut != nil && heal != nil {
		s.Cut = func(t testing.TB, b wsroom.Broker) { cut(t, b.(*direct).Broker) }
		s.Heal = func(t testing.TB, b wsroom.Broker) { heal(t, b.(*direct).Broker) }
	}
	return s
}

// direct is a broker whose direct methods take the place of the others.
type direct struct{ wsroom.Broker }

func (d *direct) MaxData() int { return maxData(d.Broker) }

func (d *direct) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	return d.Broker.(directBroker).SubscribeDirect(ctx, topic, deliver, lost)
}

// Keep and Follow are for brokers that are Keepers.
func (d *direct) Keep(ctx context.Context, topic string, data []byte, n int, age time.Duration) error {
	return d.Broker.(wsroom.Keeper).Keep(ctx, topic, data, n, age)
}

func (d *direct) Follow(
	ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
) (func(), error) {
	return d.Broker.(directKeeper).FollowDirect(ctx, topic, n, deliver, live, lost)
}
