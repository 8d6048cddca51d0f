package wsroom_test

import (
	"context"
	"expvar"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// published keeps all counters and gauges in expvar, by metric and cause.
type published struct{ *expvar.Map }

func (p published) Add(metric, route, cause string, n int) {
	if cause != "" {
		metric += ":" + cause
	}
	p.Map.Add(metric, int64(n))
}

func (p published) Record(metric, route, cause string, value float64) {} // distributions aren't kept

// Counters for expvar. For Prometheus and OpenTelemetry there are adapters.
func ExampleObserver() {
	counters := published{new(expvar.Map)} // expvar.NewMap("wsroom")
	hub := wsroom.New(wsroom.WithObserver(counters))
	srv := httptest.NewServer(hub)
	defer srv.Close()

	ws, _, err := websocket.Dial(context.Background(), srv.URL+"/a", nil)
	if err != nil {
		log.Fatal(err)
	}
	ws.Close(websocket.StatusNormalClosure, "")
	hub.Shutdown(context.Background()) // and every callback has returned
	_, _, _ = websocket.Dial(context.Background(), srv.URL+"/a", nil)

	for _, name := range []string{"joins", "conns", "ended:peer", "refused:shutdown"} {
		fmt.Println(name, counters.Get(name))
	}
	stats := hub.Stats()
	fmt.Println(stats.Opened, stats.Closed)
	// Output:
	// joins 1
	// conns 0
	// ended:peer 1
	// refused:shutdown 1
	// 1 1
}
