package resume_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// record plays the same scene, and returns the bytes that a plain client gets after its handshake. With others a
// client of wsroom.v1 is in its rooms, too.
func record(t *testing.T, others bool, opts ...wsroom.Option) []byte {
	onConnect := func(c *wsroom.Conn, r *http.Request) error {
		if r.URL.RawQuery != "plain" {
			return c.Join("b")
		}
		c.SendText("snapshot")
		err := c.Enter("b", func(bool) error { return c.SendText("welcome") })
		return err
	}
	echo := func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendText(text)
		}
	}
	opts = append(opts, wsroom.OnConnect(onConnect), wsroom.OnText(echo), wsroom.WithCompression(64))
	hub := newHub(t, opts...)
	s := serve(t, hub)
	var c *v1
	if others {
		c = newV1(t, "/a")
		c.connect(s)
	}

	conn, err := s.listener.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	raw := kit.UpgradeRaw(t, conn, "/a?plain", kit.OfferDeflate)
	var got bytes.Buffer
	done := make(chan struct{})
	go func() { // it reads all the time
		defer close(done)
		_, _ = io.Copy(&got, raw.R)
	}()
	if others {
		go c.run()
	}

	synctest.Wait()
	if n := len(hub.Members("b")); n != 1+len(hub.Members("/a"))/2 {
		t.Fatalf("%d members", n)
	}

	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		text := strings.Repeat(fmt.Sprint(i, " "), 1+rnd.IntN(60))
		switch rnd.IntN(6) {
		case 0:
			hub.To("/a", "b").SendText(text)
		case 1:
			hub.To("b", "/a").SendBinary([]byte(text))
		case 2:
			hub.SendTextToAll(text)
		case 3:
			hub.To("/a").Except(nil).SendText(text)
		case 4:
			hub.SendTextToRoom("b", text)
		case 5:
			raw.Frame(0x81, text)
		}
		synctest.Wait()
	}
	raw.Frame(0x88, "\x03\xe8")
	<-done
	if others {
		c.cut()
	}
	return got.Bytes()
}

// A plain client gets the same bytes with a history, and beside clients of wsroom.v1, as without.
func TestPlainClientGetsTheSameBytes(t *testing.T) {
	var want []byte
	synctest.Test(t, func(t *testing.T) { want = record(t, false) })
	if len(want) < 5_000 {
		t.Fatalf("%d bytes", len(want))
	}
	history := wsroom.WithHistory(10, 1<<20, time.Minute)
	for name, play := range map[string]func(t *testing.T) []byte{
		"v1":             func(t *testing.T) []byte { return record(t, true) },
		"history":        func(t *testing.T) []byte { return record(t, false, history) },
		"history and v1": func(t *testing.T) []byte { return record(t, true, history) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := play(t); !bytes.Equal(got, want) {
					t.Errorf("%d bytes, want %d; they differ from %d on", len(got), len(want), difference(got, want))
				}
			})
		})
	}
}

func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// allocs returns what a send to the room allocates when it has these members.
func allocs(t *testing.T, size, plain, v1s int, opts ...wsroom.Option) (objects float64, bytes uint64) {
	hub := newHub(t, opts...)
	s := serve(t, hub)
	for i := range plain + v1s {
		headers := []string{}
		if i >= plain {
			headers = append(headers, "Sec-WebSocket-Protocol: wsroom.v1\r\n")
		}
		conn, err := s.listener.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		raw := kit.UpgradeRaw(t, conn, "/a", headers...)
		defer raw.Close()
		go io.Copy(io.Discard, raw.R)
	}
	payload := make([]byte, size)
	send := func() {
		hub.To("/a").SendBinary(payload)
		kit.Until(t, "it is written", func() bool {
			return !slices.ContainsFunc(hub.Members("/a"), func(c *wsroom.Conn) bool { n, _ := c.Queued(); return n > 0 })
		})
	}
	for range 50 {
		send()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 200
	for range rounds {
		hub.To("/a").SendBinary(payload)
	}
	kit.Until(t, "it is written", func() bool {
		return !slices.ContainsFunc(hub.Members("/a"), func(c *wsroom.Conn) bool { n, _ := c.Queued(); return n > 0 })
	})
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / rounds, (after.TotalAlloc - before.TotalAlloc) / rounds
}

// A message is encoded once, however many members of both kinds a room has: what a send allocates doesn't grow
// with its size times the members.
func TestEncodedOnceForBothKinds(t *testing.T) {
	const size = 100 << 10
	history := wsroom.WithHistory(4, 10<<20, time.Minute)
	queue := wsroom.WithSendQueue(1000, 1<<30)
	few, fewBytes := allocs(t, size, 1, 1, history, queue)
	many, manyBytes := allocs(t, size, 12, 12, history, queue)
	if fewBytes > 3*size || manyBytes > 3*size {
		t.Errorf("a send of %d bytes allocates %d for 2 members, %d for 24", size, fewBytes, manyBytes)
	}
	t.Logf("%d bytes and %.1f objects for 2 members, %d and %.1f for 24", fewBytes, few, manyBytes, many)
}
