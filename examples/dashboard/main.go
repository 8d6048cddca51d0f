// Dashboard draws what a service does, as it does it. The service reports a thousand requests a second
// and more; the hub is push-only, and gets ten messages a second out of them. Only the latest counts: for
// a page that is slow one message waits, the newest.
//
//	go run ./examples/dashboard   # then open http://localhost:8080
package main

import (
	"context"
	"embed"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

const (
	keep = time.Minute // what a page that opens is shown of the past
	step = 5 * time.Millisecond
)

//go:embed index.html dashboard.css dashboard.js
var files embed.FS

// sample is what happened since the last one.
type sample struct {
	At       int64   `json:"at"`       // its end, in milliseconds since 1970
	Requests float64 `json:"requests"` // a second
	Median   float64 `json:"median"`   // of the answers' times, in milliseconds
	P95      float64 `json:"p95"`
	Failed   float64 `json:"failed"` // percent
	Watching int     `json:"watching"`
}

type dashboard struct {
	hub  *wsroom.Hub
	mu   sync.Mutex // guards what follows
	past []sample

	since  time.Time // of what isn't in a sample yet
	times  []float64
	failed int
}

func newDashboard(opts ...wsroom.Option) (*dashboard, http.Handler) {
	d := &dashboard{past: []sample{}, since: time.Now()}
	d.hub = wsroom.New(append([]wsroom.Option{
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return c.SendJSON(d.history()) }),
		wsroom.WithSendQueue(1, 64<<10), wsroom.WithOverflow(wsroom.DropOldest),
		wsroom.WithMaxConns(10_000), wsroom.WithDrain(2 * time.Second),
	}, opts...)...)
	mux := http.NewServeMux()
	mux.Handle("GET /live", d.hub)
	mux.Handle("GET /", web.Files(files))
	return d, mux
}

// record is called for each request, from anywhere. It sends nothing.
func (d *dashboard) record(took time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times = append(d.times, float64(took)/float64(time.Millisecond))
	if !ok {
		d.failed++
	}
}

// push makes one sample, and one message, of all that was recorded until now.
func (d *dashboard) push(now time.Time) error {
	d.mu.Lock()
	s := sample{At: now.UnixMilli(), Watching: d.hub.Len()}
	if n := len(d.times); n > 0 {
		slices.Sort(d.times)
		s.Requests = float64(n) / now.Sub(d.since).Seconds()
		s.Median, s.P95 = d.times[n/2], d.times[n*95/100]
		s.Failed = 100 * float64(d.failed) / float64(n)
	}
	d.since, d.times, d.failed = now, d.times[:0], 0
	old := now.Add(-keep).UnixMilli()
	d.past = slices.DeleteFunc(append(d.past, s), func(s sample) bool { return s.At < old })
	d.mu.Unlock()
	return d.hub.SendJSONToAll([]sample{s})
}

// history is read after the newcomer was added to the hub's connections, so it misses no sample; one it
// gets twice has the same time.
func (d *dashboard) history() []sample {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.past)
}

func (d *dashboard) run(ctx context.Context, every time.Duration) {
	for tick := time.Tick(every); ; {
		select {
		case now := <-tick:
			if err := d.push(now); err != nil {
				log.Print(err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// simulate stands for your service.
func simulate(ctx context.Context, record func(took time.Duration, ok bool)) {
	start := time.Now()
	for at := time.Duration(0); ctx.Err() == nil; at += step {
		serve(at, record)
		time.Sleep(time.Until(start.Add(at)))
	}
}

// serve is what it does in one step: some 1,200 requests a second, with a bad moment now and then.
func serve(since time.Duration, record func(took time.Duration, ok bool)) {
	t := since.Seconds()
	trouble := max(0, math.Sin(t/3.5)-0.8) * 5
	for range rand.IntN(int(13 + 5*math.Sin(t/9) + 3*math.Sin(t/2.3))) {
		took := 18 * math.Exp(rand.NormFloat64()*(0.5+trouble/3)) * (1 + trouble)
		record(time.Duration(took*float64(time.Millisecond)), rand.Float64() > 0.002+trouble*0.02)
	}
}

func main() {
	d, handler := newDashboard()
	go simulate(context.Background(), d.record)
	go d.run(context.Background(), time.Second/10)
	web.Run(d.hub, handler)
}
