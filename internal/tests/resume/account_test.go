package resume_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// state is an application's: for each room the number that was sent last. A snapshot of it, and the messages after
// that, are all that a client needs.
type state struct {
	mu   sync.Mutex
	last map[string]int
}

// send sends the room's next number.
func (s *state) send(send func(room string, n string) error, rooms ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, room := range rooms {
		s.last[room]++
		if err := send(room, strconv.Itoa(s.last[room])); err != nil {
			return err
		}
	}
	return nil
}

// snapshot sends the client the room's number, in place of the messages that are held back.
func (s *state) snapshot(c *wsroom.Conn, room string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.DropHeld()
	return c.SendText(fmt.Sprint("snapshot ", room, " ", s.last[room]))
}

// account checks what a client got: in each room, every number after that of the last snapshot, in order.
type account struct {
	t    testing.TB
	have map[string]int // by room; -1: a snapshot is due
	done int            // events of the log
}

func (a *account) check(c *v1) {
	for ; a.done < len(c.log); a.done++ {
		event := c.log[a.done]
		if room, ok := strings.CutPrefix(event, "in "); ok {
			if room, ok = strings.CutSuffix(room, " false"); ok {
				a.have[room] = -1
			}
			continue
		}
		if snapshot, ok := strings.CutPrefix(event, ":snapshot "); ok {
			room, number, _ := strings.Cut(snapshot, " ")
			a.have[room], _ = strconv.Atoi(number)
			continue
		}
		room, number, ok := strings.Cut(event, ":")
		if n, err := strconv.Atoi(number); ok && err == nil {
			if a.have[room] != n-1 {
				a.t.Errorf("%q has %d when %d comes; log: …%q", room, a.have[room], n, c.log[max(0, a.done-20):a.done+1])
			}
			a.have[room] = n
		}
	}
}

// A client whose line breaks after any number of bytes, at any time, gets each message of its rooms once and in
// order: those that follow its snapshot, or those that follow what it had.
func TestAccount(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testAccount(t, seed) })
	}
}

func testAccount(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	st := &state{last: map[string]int{}}
	rooms := []string{"/a", "b", "c"}

	onConnect := func(c *wsroom.Conn, r *http.Request) error {
		if !c.Resumed() {
			if err := st.snapshot(c, "/a"); err != nil {
				return err
			}
		}
		return c.Enter("b", func(resumed bool) error {
			if resumed {
				return nil
			}
			return st.snapshot(c, "b")
		})
	}
	var hub *wsroom.Hub
	enter := func(c *wsroom.Conn, text string, err error) {
		if err != nil {
			return
		}
		err = c.Enter("c", func(resumed bool) error {
			if resumed {
				return nil
			}
			return st.snapshot(c, "c")
		})
		if err != nil && !errors.Is(err, wsroom.ErrClosed) {
			t.Error(err)
		}
	}
	size := 8 + rnd.IntN(300)
	hub = wsroomtest.CheckHub(t, wsroom.New(wsroom.OnConnect(onConnect), wsroom.OnText(enter),
		wsroom.WithHistory(size, 1<<20, time.Minute), wsroom.WithSendQueue(1000, 1<<20)))
	s := serve(t, hub)

	stop := make(chan struct{})
	var sending sync.WaitGroup
	for i := range 2 {
		rnd := rand.New(rand.NewPCG(seed, uint64(2+i)))
		sending.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rnd.IntN(200)) * time.Microsecond):
				}
				room := rooms[rnd.IntN(3)]
				_ = st.send(hub.SendTextToRoom, room)
				if rnd.IntN(10) == 0 {
					_ = hub.SendTextToAll("to all")
				}
			}
		})
	}

	c, a := newV1(t, "/a"), &account{t, map[string]int{}, 0}
	for range 40 {
		bytes := rnd.IntN(200)
		if rnd.IntN(2) == 0 {
			bytes = rnd.IntN(5000)
		}
		if err := c.dial(s, bytes); err != nil {
			t.Fatal(err)
		}
		_ = c.ws.Write(t.Context(), websocket.MessageText, []byte("c"))
		_ = c.run()
		a.check(c)
	}
	close(stop)
	sending.Wait()

	if err := c.dial(s, -1); err != nil {
		t.Fatal(err)
	}
	if err := c.ws.Write(t.Context(), websocket.MessageText, []byte("c")); err != nil {
		t.Fatal(err)
	}
	c.ask(1)
	a.check(c)
	for _, room := range rooms {
		if a.have[room] != st.last[room] {
			t.Errorf("%q ends with %d, want %d; log: …%q", room, a.have[room], st.last[room], c.log[max(0, len(c.log)-30):])
		}
	}
	if len(c.gaps) > 0 {
		t.Errorf("gaps %v, where nothing was lost", c.gaps)
	}
	t.Logf("history %d: resumed %d, fresh %v, gaps %v, sent %v", size, c.resumed, c.fresh, c.gaps, st.last)
	c.cut()
}
