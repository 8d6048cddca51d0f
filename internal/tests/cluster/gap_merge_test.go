package cluster_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A lost connection is one call of OnGap for each room, and one line of the log with their number.
func TestLostConnectionIsOneGapForEachRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rooms = 3000
		node := brokertest.NewMemory().Open()
		log, gaps := new(kit.LockedBuffer), make(chan string, 10_000)
		hub := kit.Nodes(t, node, 1, noteGaps(gaps), wsroom.WithLogger(slog.New(slog.NewTextHandler(log, nil))))[0]
		wsroomtest.Dial(t, hub, "/0")
		conn := kit.Member(t, hub, "/0")
		for i := 1; i < rooms; i++ {
			if err := conn.Join(fmt.Sprint("/", i)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // within a moment
			node.Down()
			node.Up()
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		if n := len(gaps); n > 2*(rooms+2) || n < rooms+1 {
			t.Errorf("%d calls of OnGap, for %d rooms, all and the node's connections", n, rooms)
		}
		lines := strings.Count(log.String(), "may be missing")
		if lines == 0 || lines > 2 || !strings.Contains(log.String(), fmt.Sprint("rooms=", rooms+1)) {
			t.Errorf("%d lines:\n%s", lines, kit.Short(log.String()))
		}
	})
}

// However many broken messages come, a room's gaps are one call in a second, and the last one comes after them.
func TestBrokenMessagesAreOneGapInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := kit.NewWire(), new(kit.LockedBuffer)
		var calls, last atomic.Int64
		hub := kit.Nodes(t, w, 1, wsroom.WithLogger(slog.New(slog.NewTextHandler(log, nil))), wsroom.OnGap(func(string, error) {
			calls.Add(1)
			last.Store(time.Now().UnixNano())
		}))[0]
		wsroomtest.Dial(t, hub, "/a")
		var end time.Time
		for range 600 {
			end = time.Now()
			if err := w.Node.Publish(t.Context(), ":room:/a", []byte("\x01 garbage garbage garbage")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		lines := strings.Count(log.String(), "may be missing")
		if n := calls.Load(); n < 2 || n > 6 || lines > 6 || last.Load() < end.UnixNano() {
			t.Errorf("%d calls, %d lines; the last call came %v after the last message", n, lines, time.Duration(last.Load()-end.UnixNano()))
		}
	})
}

// While the broker takes no subscription, each newcomer to a room of its own is refused, and the log has a line
// in a second.
func TestRefusedSubscriptionsAreFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, log := kit.NewWire(), new(kit.LockedBuffer)
		hub := kit.Nodes(t, w, 1, wsroom.WithLogger(slog.New(slog.NewTextHandler(log, nil))),
			wsroom.WithOutage(wsroom.DeliverLocally))[0]
		wsroomtest.Dial(t, hub, "/0")
		conn := kit.Member(t, hub, "/0")
		w.Set(kit.Down)
		for i := range 300 {
			if err := conn.Join(fmt.Sprint("/new", i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		w.Set(nil)
		time.Sleep(recovery)
		text := log.String()
		if n := strings.Count(text, "takes no subscription"); n == 0 || n > 2 || !strings.Contains(text, "rooms=300") {
			t.Errorf("%d lines:\n%s", n, kit.Short(text))
		}
	})
}

// What was to be reported when a hub shuts down is.
func TestGapsAreReportedAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w, gaps := kit.NewWire(), make(chan string, 10)
		hub := kit.Nodes(t, w, 1, noteGaps(gaps), wsroom.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))[0]
		wsroomtest.Dial(t, hub, "/a")
		for range 3 {
			if err := w.Node.Publish(t.Context(), ":room:/a", []byte("\x01 garbage garbage garbage")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		kit.Shutdown(t, hub)
		if len(gaps) == 0 || !strings.Contains(log.String(), "gaps=3") {
			t.Errorf("%d calls, and the log\n%s", len(gaps), log.String())
		}
	})
}
