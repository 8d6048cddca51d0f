package server

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/benchmarks/internal/load"
)

// newWsroom is the chat of wsroom's README with its defaults: heartbeats, a bounded queue for each
// member and UTF-8 checks included.
func newWsroom(o Options) http.Handler { return newWsroomHub(o) }

func newWsroomHub(o Options, options ...wsroom.Option) http.Handler {
	s := &wsroomServer{}
	options = append(options,
		wsroom.OnConnect(s.remember),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				_ = c.SendTextToThisRoom(text)
			}
		}),
	)
	if o.Deflate {
		options = append(options, wsroom.WithCompression(0))
	}
	s.Hub = wsroom.New(options...)
	return s
}

// Kept are the servers that show what a history costs: without one, with one for members that don't speak
// wsroom.v1, and for members that do.
var Kept = []Library{
	{Name: "wsroom", Dialect: load.Plain, New: newWsroom},
	{Name: "wsroom history", Dialect: load.Plain, New: newWsroomKept},
	{Name: "wsroom.v1 history", Dialect: load.V1, New: newWsroomKept},
}

const keptFor = 2 * time.Minute

func newWsroomKept(o Options) http.Handler {
	return newWsroomHub(o, wsroom.WithHistory(256, 256<<10, keptFor))
}

type wsroomServer struct {
	*wsroom.Hub
	mu    sync.Mutex
	first *wsroom.Conn
}

func (s *wsroomServer) remember(c *wsroom.Conn, _ *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		s.first = c
	}
	return nil
}

func (s *wsroomServer) joins(rooms, times int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rooms {
		if err := s.first.Join("more" + strconv.Itoa(i)); err != nil {
			return err
		}
	}
	for range times {
		if err := s.first.Join("another"); err != nil {
			return err
		}
		if err := s.first.Leave("another"); err != nil {
			return err
		}
	}
	return nil
}
