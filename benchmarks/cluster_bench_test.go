package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
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
