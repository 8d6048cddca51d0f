package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

func noteGaps(gaps chan<- string) wsroom.Option {
	return wsroom.OnGap(func(room string, err error) { gaps <- room + ": " + err.Error() })
}

// wantGaps takes the gaps that have been reported, in any order. A lost connection is one to all and one to the
// node's connections, and both are of no room.
func wantGaps(t *testing.T, gaps <-chan string, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(gaps) > 0 {
		got = append(got, <-gaps)
	}
	slices.Sort(got)
	if n := len(got); n > 1 && got[n-1] == got[n-2] && strings.HasPrefix(got[n-1], ": ") {
		got = got[:n-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("gaps %q, want %q", got, want)
	}
}

func TestGapsAreReported(t *testing.T) {
	for name, tc := range map[string]struct {
		fault func(w *kit.Wire, hub *wsroom.Hub)
		want  []string
	}{
		"the broker says so": {func(w *kit.Wire, _ *wsroom.Hub) {
			w.Down()
			w.Up()
			synctest.Wait()
		}, []string{
			"/a: wsroom: broker: brokertest: the broker was away", "/b: wsroom: broker: brokertest: the broker was away",
			": wsroom: broker: brokertest: the broker was away",
		}},
		"a message is missing": {func(w *kit.Wire, hub *wsroom.Hub) {
			w.Set(func(string, []byte) (int, error) { return 0, nil })
			hub.SendTextToRoom("/a", "never comes")
			synctest.Wait()
			w.Set(nil)
		}, []string{"/a: wsroom: broker: messages are missing"}},
		"another version": {func(w *kit.Wire, _ *wsroom.Hub) {
			w.Publish(context.Background(), ":room:/a", []byte("\x02 what comes after this release"))
		}, []string{"/a: wsroom: broker: message of a version that isn't known: 2"}},
		"garbage": {func(w *kit.Wire, _ *wsroom.Hub) {
			w.Publish(context.Background(), ":room:/a", []byte("\x01 garbage garbage garbage"))
		}, []string{"/a: wsroom: broker: malformed message"}},
		"text that isn't UTF-8": {func(w *kit.Wire, hub *wsroom.Hub) {
			var sent []byte
			w.Set(func(_ string, data []byte) (int, error) { sent = data; return 0, nil })
			wsroom.New(wsroom.WithBroker(w)).SendTextToRoom("/a", "text")
			synctest.Wait()
			w.Set(nil)
			w.Publish(context.Background(), ":room:/a", bytes.Replace(sent, []byte("text"), []byte("te\xfft"), 1))
		}, []string{"/a: wsroom: broker: malformed message"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := kit.NewWire()
				gaps := make(chan string, 10)
				hubs := kit.Nodes(t, w, 1, noteGaps(gaps))
				c := wsroomtest.Dial(t, hubs[0], "/a")
				wsroomtest.Dial(t, hubs[0], "/b")
				hubs[0].SendTextToRoom("/a", "before")
				synctest.Wait()
				tc.fault(w, hubs[0])
				hubs[0].SendTextToRoom("/a", "after")
				slices.Sort(tc.want)
				wantGaps(t, gaps, tc.want...)
				c.ExpectText("before", "after")
			})
		})
	}
}

// A message that the broker never takes holds up none behind it, and is missed.
func TestRejectedMessageIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		gaps := make(chan string, 10)
		hub := kit.Nodes(t, w, 1, noteGaps(gaps))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		w.Set(func(_ string, data []byte) (int, error) {
			if len(data) > 10_000 {
				return 0, fmt.Errorf("too large: %w", rejected{kit.ErrDown})
			}
			return 1, nil
		})
		for _, text := range []string{"before", strings.Repeat("x", 20_000), "after"} {
			if err := hub.SendTextToRoom("/a", text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		c.ExpectText("before", "after")
		wantGaps(t, gaps, "/a: wsroom: broker: too large: down")
	})
}
