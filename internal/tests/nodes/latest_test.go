package nodes_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// The newest value of a key that one node sends replaces what waits for a client of another node. Then the other
// node knows who has it.
func TestLatestAndDeliveredAcrossNodes(t *testing.T) {
	for name, kind := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.start(t)
			from, to := newHub(t, kind, s.addr), newHub(t, kind, s.addr)
			slow := wsroomtest.Dial(t, to, "/a", wsroomtest.WithTimeout(patience))
			slow.Stall()
			if err := from.SendTextToRoom("/a", strings.Repeat("x", 100<<10)); err != nil { // it is being written for long
				t.Fatal(err)
			}
			reader := wsroomtest.Dial(t, to, "/a", wsroomtest.WithTimeout(patience))
			ready := from.SendTextToRoom("/a", "chat")
			for ready == nil && reader.NextText() != "chat" {
			}
			for i := range 100 {
				if err := from.To("/a").Latest(fmt.Sprint("key ", i%2)).SendText(fmt.Sprint("value ", i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := from.SendTextToRoom("/a", "end"); err != nil {
				t.Fatal(err)
			}
			for reader.NextText() != "end" {
			}

			slow.Resume()
			var got []string
			for len(got) == 0 || got[len(got)-1] != "end" {
				got = append(got, slow.NextText())
			}
			if want := []string{"chat", "value 98", "value 99", "end"}; !slices.Equal(got[1:], want) {
				t.Errorf("got %q", got[1:])
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := to.SendTextToRoom("/a", "last"); err != nil {
				t.Fatal(err)
			}
			if missing := to.To("/a").Delivered(ctx); len(missing) > 0 {
				t.Errorf("%d are missing", len(missing))
			}
			for _, c := range []*wsroomtest.Client{slow, reader} {
				c.ExpectText("last")
			}
		})
	}
}
