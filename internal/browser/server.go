package browser

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// Server serves an example, as web.Run does, and can be stopped and started again.
type Server struct {
	URL string

	t     *testing.T
	build func() (*wsroom.Hub, http.Handler)
	addr  string
	hub   *wsroom.Hub
	srv   *http.Server
}

// Serve serves what build makes until the test ends.
func Serve(t *testing.T, build func() (*wsroom.Hub, http.Handler)) *Server {
	t.Helper()
	s := &Server{t: t, build: build, addr: "127.0.0.1:0"}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts the server, at the address that it had.
func (s *Server) Start() {
	s.t.Helper()
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.URL = "http://" + s.addr
	hub, handler := s.build()
	s.hub, s.srv = hub, &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() { _ = s.srv.Serve(ln) }() // ErrServerClosed
}

// Stop stops the server, as a signal does.
func (s *Server) Stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.hub.Shutdown(ctx); err != nil {
		s.t.Error(err)
	}
	if n := s.hub.Len(); n != 0 {
		s.t.Errorf("%d connections are left", n)
	}
	if err := s.srv.Close(); err != nil {
		s.t.Error(err)
	}
}
