package main

import (
	"context"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/wsroom/wsroom"
)

// site serves a dashboard whose sockets take little that isn't read.
func site(t *testing.T, opts ...wsroom.Option) (d *dashboard, url string) {
	d, handler := newDashboard(opts...)
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		return ctx
	}
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := d.hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return d, srv.URL
}

func watch(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), url+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return ws
}

func next(t *testing.T, ws *websocket.Conn) []sample {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var some []sample
	if err := wsjson.Read(ctx, ws, &some); err != nil {
		t.Fatal(err)
	}
	return some
}

// However much was recorded, one message tells it.
func TestManyRequestsAreOneMessage(t *testing.T) {
	d, url := site(t)
	ws := watch(t, url)
	if some := next(t, ws); some == nil || len(some) != 0 {
		t.Errorf("at first %#v, want an empty list", some)
	}
	for i := range 1000 {
		d.record(time.Duration(i)*time.Millisecond, i%10 != 0)
	}
	now := d.since.Add(2 * time.Second)
	if err := d.push(now); err != nil {
		t.Fatal(err)
	}
	want := sample{At: now.UnixMilli(), Requests: 500, Median: 500, P95: 950, Failed: 10, Watching: 1}
	if some := next(t, ws); len(some) != 1 || some[0] != want {
		t.Errorf("got %+v, want %+v", some, want)
	}
	if n := d.hub.Stats().Sent; n != 2 {
		t.Errorf("%d messages were sent, want 2", n)
	}
	if err := d.push(now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if some := next(t, ws); some[0].Requests != 0 || some[0].Failed != 0 {
		t.Errorf("got %+v of a quiet second", some)
	}
}

func TestNewcomerGetsTheLastMinute(t *testing.T) {
	d, url := site(t)
	start := time.Now()
	for i := range 100 {
		if err := d.push(start.Add(time.Duration(i) * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	past := next(t, watch(t, url))
	if first := start.Add(39 * time.Second).UnixMilli(); len(past) != 61 || past[0].At != first {
		t.Errorf("%d samples from %d on, want 61 from %d on", len(past), past[0].At, first)
	}
}

// A page that doesn't read costs the others nothing, and goes on with the latest.
func TestSlowPageGetsTheLatest(t *testing.T) {
	dropped := make(chan struct{}, 1)
	d, url := site(t, wsroom.OnDrop(func(*wsroom.Conn, int) {
		select {
		case dropped <- struct{}{}:
		default:
		}
	}))
	slow, quick := watch(t, url), watch(t, url)
	next(t, quick)
	at, last := time.Now(), int64(0)
	for full, n := false, 0; !full; n++ {
		if n > 50_000 {
			t.Fatal("nothing was dropped for the slow page")
		}
		at = at.Add(time.Millisecond)
		if err := d.push(at); err != nil {
			t.Fatal(err)
		}
		some := next(t, quick) // each of them, at once
		if len(some) != 1 || some[0].At != at.UnixMilli() {
			t.Fatalf("got %+v, want the sample of %d", some, at.UnixMilli())
		}
		last = some[0].At
		select {
		case <-dropped:
			full = true
		default:
		}
	}
	for some := next(t, slow); len(some) == 0 || some[len(some)-1].At != last; {
		some = next(t, slow)
	}
}

func TestPagesMayNotTalk(t *testing.T) {
	_, url := site(t)
	ws := watch(t, url)
	next(t, ws)
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("got %v, want 1003: the hub is push-only", err)
	}
}
