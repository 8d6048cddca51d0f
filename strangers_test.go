package wsroom_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/wsroomtest"
)

// forged is an envelope of the node that sent another one, with a message of that sequence.
func forged(of []byte, sequence, back uint64, text string) []byte {
	letter := binary.AppendUvarint(nil, sequence)
	letter = binary.AppendUvarint(letter, back)
	letter = append(append(letter, 1), text...)
	e := binary.AppendUvarint(bytes.Clone(of[:envelopeSize]), uint64(len(letter)))
	return append(e, letter...)
}

// A forged sequence silences no node, whether the node was heard before or is heard by it first.
func TestForgedSequenceSilencesNobody(t *testing.T) {
	for _, sequence := range []uint64{1 << 30, 1 << 40, 1 << 62, math.MaxUint64} {
		for _, back := range []uint64{0, 1, sequence - 1, math.MaxUint64} {
			for _, before := range []int{0, 3} {
				t.Run(fmt.Sprint(sequence, " ", back, " ", before), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWire()
						var sent []byte
						w.set(func(_ string, data []byte) (int, error) {
							if data != nil {
								sent = data
							}
							return 1, nil
						})
						gaps := make(chan string, 100)
						hubs := append(nodes(t, w, 1, noteGaps(gaps)), nodes(t, w, 1)...)
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
						if err := w.Node.Publish(t.Context(), ":room:/a", forged(sent, sequence, back, "forged")); err != nil {
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

// manyNames is a message to all but n connections, or but the members of n rooms, of names of that size.
func manyNames(kind byte, n, size int) []byte {
	letter := append(binary.AppendUvarint([]byte{1, 0, kind}, uint64(n)), bytes.Repeat(append([]byte{byte(size)}, strings.Repeat("x", size)...), n)...)
	e := binary.AppendUvarint(append([]byte{1}, make([]byte, 16)...), uint64(len(letter)+4))
	return append(append(e, letter...), "text"...)
}

// An envelope that asks for too much is a gap, at once. The most that a node may ask costs little.
func TestEnvelopeAsksForLittle(t *testing.T) {
	for _, tc := range []struct {
		name     string
		envelope []byte
		taken    bool
	}{
		{"8 million without a name, except", manyNames(0x21, 8<<20, 0), false},
		{"8 million names, except", manyNames(0x21, 8<<20, 1), false},
		{"8 million names, besides", manyNames(0x11, 8<<20, 1), false},
		{"names that aren't there", append(append([]byte{1}, make([]byte, 16)...), 8, 1, 0, 0x21, 0xff, 0xff, 0xff, 0xff, 0x0f), false},
		{"65,536, except", manyNames(0x21, 1<<16, 30), true},
		{"65,536, besides", manyNames(0x11, 1<<16, 30), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			synctest.Test(t, func(t *testing.T) {
				w := newWire()
				gaps := make(chan string, 100)
				hub := nodes(t, w, 1, noteGaps(gaps))[0]
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
		hub := nodes(t, newWire(), 1)[0]
		rooms := make([]string, 1<<16+2)
		for i := range rooms {
			rooms[i] = fmt.Sprint("/", i)
		}
		if err := hub.To(rooms...).SendText("text"); err == nil || !strings.Contains(err.Error(), "rooms") {
			t.Errorf("the error is %v", err)
		}
	})
}
