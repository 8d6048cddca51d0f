package cluster_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A message to several rooms that is taken is published for each of them, however small the buffer is: it counts
// against the buffer once, as a whole.
func TestSendToSeveralRoomsIsTakenForAllOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := make(chan string, 10)
		hubs := kit.Nodes(t, kit.NewWire(), 2, wsroom.WithBrokerBuffer(time.Second, 500), noteGaps(gaps))
		rooms := []string{"/a", "/b", "/c"}
		var members []*wsroomtest.Client
		for _, room := range rooms {
			members = append(members, wsroomtest.Dial(t, hubs[1], room))
		}
		synctest.Wait()

		text := strings.Repeat("x", 300)
		if err := hubs[0].To(rooms...).SendText(text); err != nil {
			t.Fatalf("nothing waits: %v", err)
		}
		for _, member := range members {
			member.ExpectText(text)
		}
		if len(gaps) > 0 {
			t.Errorf("gap: %s", <-gaps)
		}
	})
}
