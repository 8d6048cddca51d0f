package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// BenchmarkBroker sends to a room without a broker, by way of one in memory to the same hub's members, and
// to those of another hub. The objects are those of all hubs and of the broker together.
func BenchmarkBroker(b *testing.B) {
	text := strings.Repeat("x", 128)
	for _, ahead := range []int{1, 32} {
		for _, members := range []int{10, 1000} {
			for _, by := range []string{"none", "own", "other"} {
				b.Run(fmt.Sprintf("ahead=%d/members=%d/broker=%s", ahead, members, by), func(b *testing.B) {
					h, sender := newNodes(b, members, by)
					h.flood(b, ahead, func() error { return sender.SendTextToRoom("/bench", text) })
				})
			}
		}
	}
}

// BenchmarkRedis sends to a small room by way of Redis, one message at a time, which the members of the same hub
// and of another one get. It reports the processor time of both hubs for a message.
func BenchmarkRedis(b *testing.B) {
	redis, err := startBroker(b.Context(), server.Redis)
	if err != nil {
		b.Skip(err)
	}
	defer redis.stop()
	text := strings.Repeat("x", 128)
	for _, members := range []int{2, 10} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			heard, hubs := make(chan struct{}, members), []*bench{}
			for range 2 {
				h := newBench(b, 0, false, overRedis(b, redis))
				for range members / 2 {
					h.sinks = append(h.sinks, h.connectTo(func(s *sink) net.Conn { return bell{s, heard} }))
				}
				hubs = append(hubs, h)
			}
			send := func() {
				if err := hubs[0].SendTextToRoom("/bench", text); err != nil {
					b.Fatal(err)
				}
				for range members {
					<-heard
				}
			}
			for len(heard) > 0 { // handshakes
				<-heard
			}
			send()
			b.ReportAllocs()
			b.ResetTimer()
			before := ownTime()
			for range b.N {
				send()
			}
			b.ReportMetric(micros(ownTime()-before)/float64(b.N), "cpu-µs/op")
		})
	}
}

// bell is a sink that tells of each write. To look for them in a loop would keep the network waiting.
type bell struct {
	*sink
	heard chan struct{}
}

func (b bell) Write(p []byte) (int, error) { b.heard <- struct{}{}; return b.sink.Write(p) }

func overRedis(b *testing.B, redis broker) wsroom.Option {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return wsroom.WithBroker(redisbroker.New(client))
}

// newNodes returns a hub with members, and one to send by that shares a broker with it or is the same.
func newNodes(b *testing.B, members int, by string) (h *bench, sender *wsroom.Hub) {
	b.Helper()
	if by == "none" {
		h = newBench(b, members, false)
		return h, h.Hub
	}
	server := brokertest.NewMemory()
	h = newBench(b, members, false, wsroom.WithBroker(server.Open()))
	if by == "own" {
		return h, h.Hub
	}
	return h, newBench(b, 0, false, wsroom.WithBroker(server.Open())).Hub
}
