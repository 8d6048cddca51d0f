package cluster_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Whatever comes from the broker, the hub goes on: its members get nothing that isn't text, and they get the
// messages that follow.
func FuzzEnvelope(f *testing.F) {
	w := kit.NewWire()
	var seeds [][]byte
	w.Set(func(_ string, data []byte) (int, error) {
		if data != nil {
			seeds = append(seeds, data)
		}
		return 1, nil
	})
	hub := wsroom.New(wsroom.WithBroker(w))
	conn := wsroomtest.Dial(f, hub, "/a")
	target := hub.To("/a", "/b").Except(hub.Members("/a")...)
	if err := errors.Join(hub.SendTextToRoom("/a", "text"), target.SendText("several"), target.SendBinary([]byte{0xff}),
		hub.To("/c").Close(4000, "reason"), hub.ToIdentity("ann").SendText("to an identity"), hub.To("/c").Join("/d"),
		hub.To("/c").ExceptIdentity("ann").Leave("/d"), hub.ToConn(hub.Members("/a")[0].ID()).SendText("to one")); err != nil {
		f.Fatal(err)
	}
	if err := hub.Shutdown(f.Context()); err != nil {
		f.Fatal(err)
	}
	conn.CloseNow()
	seeds = append(seeds, kit.Forged(seeds[0], 1<<62, 0, "forged"), kit.Forged(seeds[0], 1<<40, 1<<39, "forged"), kit.ManyNames(0x11, 1000, 0), kit.ManyNames(0x31, 50, 3))
	for _, data := range seeds {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		defer func(began time.Time) {
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		}(time.Now())
		synctest.Test(t, func(t *testing.T) {
			w := kit.NewWire()
			hub := kit.Nodes(t, w, 1)[0]
			member, other := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
			if len(data) >= kit.EnvelopeSize { // from a node that has sent something before
				data = bytes.Clone(data)
				copy(data[1:kit.EnvelopeSize], make([]byte, 16))
				if err := w.Publish(t.Context(), ":room:/a", kit.FirstEnvelope(0, "first")); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := w.Publish(t.Context(), ":room:/a", data); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if err := hub.SendTextToAll("after"); err != nil {
				t.Fatal(err)
			}
			other.ExpectText("after")
			synctest.Wait()
			if hub.Len() == 2 {
				got := member.Drain()
				mayBeBinary := slices.ContainsFunc(data, func(b byte) bool { return b&^0xb0 == 2 }) // the kind, and its bits
				if got[len(got)-1] != "after" || !utf8.ValidString(strings.Join(got, "")) && !mayBeBinary {
					t.Errorf("the member got %q", got)
				}
			}
		})
	})
}
