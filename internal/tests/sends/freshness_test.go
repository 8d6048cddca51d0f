package sends_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// No more than WithFreshness allows is written that the client hasn't answered for. What waits beyond it is
// dropped or replaced in the queue, and goes out when the client has answered.
func TestFreshnessBoundsWhatIsOnItsWay(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithFreshness(4096), wsroom.WithOverflow(wsroom.DropOldest),
			wsroom.WithSendQueue(1, 1<<20), wsroom.OnText(kit.DiscardText))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		ping, written := "", 0
		for round := range 20 {
			for i := range 50 {
				hub.SendTextToRoom("/a", fmt.Sprintf("%d %d%01000d", round, i, 0))
				texts, last := reads(raw) // all that is written
				written += len(texts)
				if last != "" {
					ping = last
				}
			}
			if most := 5; written > most { // the one that passes the bound, too
				t.Fatalf("round %d: %d have come without an answer", round, written)
			}
			hub.SendTextToRoom("/a", fmt.Sprint("newest of ", round))
			if texts, _ := reads(raw); len(texts) > 0 {
				t.Fatalf("round %d: without an answer %d come", round, len(texts))
			}
			if n, _ := kit.Member(t, hub, "/a").Queued(); n != 1 {
				t.Errorf("round %d: %d wait", round, n)
			}
			raw.SetDeadline(time.Time{})
			raw.Frame(0x8a, ping)
			texts, last := reads(raw)
			if len(texts) != 1 || texts[0] != fmt.Sprint("newest of ", round) {
				t.Fatalf("round %d: after the answer %.40q comes", round, texts)
			}
			if written = 0; last != "" {
				ping = last
			}
		}
	})
}

// Of many messages that wait no more are written at a time, whatever else is. At the end all are.
func TestFreshnessBoundsABatch(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithFreshness(4096), wsroom.OnText(kit.DiscardText))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		for range 100 {
			hub.SendTextToRoom("/a", strings.Repeat("x", 1000))
		}
		come := 0
		for range 10 {
			texts, ping := reads(raw)
			if come += len(texts); len(texts) == 0 || len(texts) > 5 || ping == "" {
				t.Fatalf("%d come at once, the last ping is %q", len(texts), ping)
			}
			raw.SetDeadline(time.Time{})
			raw.Frame(0x89, "")
			if texts, _ := reads(raw); len(texts) != 1 || texts[0] != "" {
				t.Fatalf("%d messages come with a pong", len(texts)-1)
			}
			raw.SetDeadline(time.Time{})
			raw.Frame(0x8a, ping)
		}
		texts, _ := reads(raw)
		come += len(texts)
		kit.Member(t, hub, "/a").Close(4000, "")
		if texts, _ = reads(raw); come+len(texts) != 101 || texts[len(texts)-1] != "\x0f\xa0" {
			t.Errorf("%d have come; %d do at the end, the last is %.10q", come, len(texts), texts[len(texts)-1])
		}
		raw.Close()
	})
}

// reads reads what the server writes until nothing comes: texts, and the last ping's payload.
func reads(c *kit.RawConn) (texts []string, ping string) {
	for {
		synctest.Wait()
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		switch first, p, err := c.Next(); {
		case err != nil:
			return texts, ping
		case first == 0x89:
			ping = p
		default:
			texts = append(texts, p)
		}
	}
}

// A client that never answers ends as one that doesn't read, but not while nobody listens to it.
func TestFreshnessGivesUpAClientThatNeverAnswers(t *testing.T) {
	for name, opt := range map[string]wsroom.Option{
		"read": wsroom.OnText(kit.DiscardText),
		"not read": wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
			if err == nil {
				time.Sleep(30 * time.Second)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			newHub := kit.HubWithEnds(&ends, wsroom.WithHeartbeat(0, 0), wsroom.WithFreshness(1024), wsroom.WithWriteTimeout(5*time.Second), opt)
			kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				raw := s.DialRaw("/a")
				raw.Frame(0x81, "x")
				synctest.Wait()
				for range 5 {
					hub.SendTextToRoom("/a", strings.Repeat("x", 500))
				}
				pings(raw, false)
				raw.SetDeadline(time.Time{})
				go raw.CloseFrame()
				end := <-ends
				if !errors.Is(end.Err, os.ErrDeadlineExceeded) {
					t.Errorf("ended by %v", end.Err)
				}
				least := 5 * time.Second
				if name == "not read" {
					least += 30 * time.Second
				}
				kit.WantBetween(t, "its end", end.At, least, least+2*time.Second)
				raw.Close()
			})
		})
	}
}

// A snapshot from OnConnect, during which no answer is read, isn't held up, nor is what waits at the end. A
// client that reads gets everything.
func TestFreshnessLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 100<<10)
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithFreshness(1024), wsroom.WithSendQueue(1000, 200<<10), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			for range 10 {
				if err := c.SendText(large); err != nil {
					return err
				}
			}
			return nil
		})))
		c := wsroomtest.Dial(t, hub, "/a")
		for range 10 {
			c.ExpectText(large)
		}
		c.Stall()
		for i := range 500 {
			hub.SendTextToRoom("/a", fmt.Sprintf("%03d%0100d", i, 0))
		}
		kit.Member(t, hub, "/a").Close(4000, "")
		c.Resume()
		for i := range 500 {
			if text := c.NextText(); !strings.HasPrefix(text, fmt.Sprintf("%03d", i)) {
				t.Fatalf("%.10q comes, want %d", text, i)
			}
		}
		c.ExpectClose(4000)
	})
}

// Over a real socket, what a client reads that reads half of what is sent is fresh: 30 messages of 2 KiB a
// second.
func TestFreshnessOverTCP(t *testing.T) {
	ages := map[bool]time.Duration{}
	var mu sync.Mutex // guards ages
	var wg sync.WaitGroup
	for _, fresh := range []bool{false, true} {
		opts := []wsroom.Option{wsroom.WithOverflow(wsroom.DropOldest), wsroom.WithSendQueue(1, 64<<10)}
		if fresh {
			opts = append(opts, wsroom.WithFreshness(4<<10))
		}
		hub := wsroom.New(opts...)
		srv := kit.Serve(t, hub)
		wg.Go(func() {
			age := ageOfWhatIsRead(t, srv, hub, 4*time.Second)
			mu.Lock()
			defer mu.Unlock()
			ages[fresh] = age
		})
	}
	wg.Wait()
	t.Logf("after 4 s a message is %v old, %v with WithFreshness", ages[false], ages[true])
	if ages[true] > 500*time.Millisecond { // it is 0.05 s
		t.Errorf("with WithFreshness a message is %v old", ages[true])
	}
}

func ageOfWhatIsRead(t *testing.T, srv *httptest.Server, hub *wsroom.Hub, d time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), d+kit.Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, srv.URL+"/a", nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer ws.CloseNow()

	begin := time.Now()
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		for pad := strings.Repeat("x", 2<<10); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = hub.To("/a").SendJSON([]any{time.Since(begin), pad})
			}
		}
	})
	defer sending.Wait()
	defer close(stop)

	var ages []time.Duration
	tick := time.NewTicker(time.Second / 15)
	defer tick.Stop()
	for time.Since(begin) < d {
		<-tick.C
		_, p, err := ws.Read(ctx)
		if err != nil {
			t.Error(err)
			return 0
		}
		var sent time.Duration
		if err := json.Unmarshal(p, &[]any{&sent, new(string)}); err != nil {
			t.Error(err)
		}
		ages = append(ages, time.Since(begin)-sent)
	}
	last := ages[max(0, len(ages)-15):]
	slices.Sort(last)
	return last[len(last)/2]
}
