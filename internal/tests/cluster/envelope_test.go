package cluster_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A forged sequence silences no node, whether the node was heard before or is heard by it first.
func TestForgedSequenceSilencesNobody(t *testing.T) {
	for _, sequence := range []uint64{1 << 30, 1 << 40, 1 << 62, math.MaxUint64} {
		for _, back := range []uint64{0, 1, sequence - 1, math.MaxUint64} {
			for _, before := range []int{0, 3} {
				t.Run(fmt.Sprint(sequence, " ", back, " ", before), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := kit.NewWire()
						var sent []byte
						w.Set(func(_ string, data []byte) (int, error) {
							if data != nil {
								sent = data
							}
							return 1, nil
						})
						gaps := make(chan string, 100)
						hubs := append(kit.Nodes(t, w, 1, noteGaps(gaps)), kit.Nodes(t, w, 1)...)
						other := hubs[1]
						a := wsroomtest.Dial(t, hubs[0], "/a")
						send := func(room, text string) {
							if err := other.SendTextToRoom(room, text); err != nil {
								t.Fatal(err)
							}
							synctest.Wait()
						}
						send("/elsewhere", "for its number")
						var want []string
						for i := range before {
							want = append(want, fmt.Sprint("before ", i))
							send("/a", want[i])
						}
						if err := w.Node.Publish(t.Context(), ":room:/a", kit.Forged(sent, sequence, back, "forged")); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
						for i := range 20 {
							want = append(want, fmt.Sprint(i))
							send("/a", fmt.Sprint(i))
						}
						var got []string
						for _, text := range a.Drain() {
							if text != "forged" {
								got = append(got, text)
							}
						}
						if strings.Join(got, " ") != strings.Join(want, " ") {
							t.Errorf("got %q", got)
						}
						time.Sleep(2 * time.Second)
						if len(gaps) == 0 {
							t.Error("there is no gap")
						}
					})
				})
			}
		}
	}
}

// An envelope that asks for too much is a gap, at once. The most that a node may ask costs little.
func TestEnvelopeAsksForLittle(t *testing.T) {
	for _, tc := range []struct {
		name     string
		envelope []byte
		taken    bool
	}{
		{"8 million without a name, except", kit.ManyNames(0x21, 8<<20, 0), false},
		{"8 million names, except", kit.ManyNames(0x21, 8<<20, 1), false},
		{"8 million names, besides", kit.ManyNames(0x11, 8<<20, 1), false},
		{"names that aren't there", append(append([]byte{1}, make([]byte, 16)...), 8, 1, 0, 0x21, 0xff, 0xff, 0xff, 0xff, 0x0f), false},
		{"identities, on a room's topic", append(append([]byte{1}, make([]byte, 16)...), 13, 1, 0, 0x81, 1, 3, 'a', 'n', 'n', 0, 't', 'e', 'x', 't'), false},
		{"8 million identities", kit.ManyNames(0x81, 8<<20, 1), false},
		{"to enter no room", append(append([]byte{1}, make([]byte, 16)...), 4, 1, 0, 5, 0), false},
		{"to enter a room and more", append(append([]byte{1}, make([]byte, 16)...), 7, 1, 0, 5, 1, 1, 'b', 0), false},
		{"65,536, except", kit.ManyNames(0x21, 1<<16, 30), true},
		{"65,536, besides", kit.ManyNames(0x11, 1<<16, 30), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) {
				w := kit.NewWire()
				gaps := make(chan string, 100)
				hub := kit.Nodes(t, w, 1, noteGaps(gaps))[0]
				clients := wsroomtest.DialN(t, 200, hub, "/a")
				if err := w.Node.Publish(t.Context(), ":room:/a", tc.envelope); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if tc.taken {
					clients[199].ExpectText("text")
					wantGaps(t, gaps)
				} else {
					clients[199].ExpectNothing()
					wantGaps(t, gaps, "/a: wsroom: broker: malformed message")
				}
			})
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// What a node may not ask of the others is an error of the send.
func TestSendToTooManyRoomsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := kit.Nodes(t, kit.NewWire(), 1)[0]
		rooms := make([]string, 1<<16+2)
		for i := range rooms {
			rooms[i] = fmt.Sprint("/", i)
		}
		if err := hub.To(rooms...).SendText("text"); err == nil || !strings.Contains(err.Error(), "rooms") {
			t.Errorf("the error is %v", err)
		}
	})
}
