package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// roleEnv makes the test binary a server of the shutdown tests; its value is the drain window.
const roleEnv = "WSROOM_SOAK_DRAIN"

func TestMain(m *testing.M) {
	window, isServer := os.LookupEnv(roleEnv)
	if !isServer {
		os.Exit(m.Run())
	}
	d, err := time.ParseDuration(window)
	if err == nil {
		err = serveUntilTerm(d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	serverRooms    = 20
	serverPace     = 50 // messages a second, over all rooms
	lastBurst      = 5  // messages to each room, of lastSize bytes, just before Shutdown
	lastSize       = 1000
	shutdownBudget = 12 * time.Second
)

// verdict is what the server says at its end.
type verdict struct {
	Opened, Closed int            // OnConnect and OnClose
	AtLeast        map[string]int // by client: the last message that it was still a member for, for sure
}

// server sends numbered messages to its rooms until it has shut down.
type server struct {
	hub *wsroom.Hub

	mu sync.Mutex // guards the rest, and orders sends
	verdict
	numbers [serverRooms]int
}

// serveUntilTerm prints its address, serves until SIGTERM, shuts down as the README shows, and prints
// its verdict.
func serveUntilTerm(drain time.Duration) error {
	s := &server{verdict: verdict{AtLeast: map[string]int{}}}
	s.hub = wsroom.New(wsroom.WithDrain(drain), wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithMaxConnsPer(wsroom.ByAddr, 50), wsroom.WithTrustedProxies("127.0.0.1"), // clients have others
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.Opened++
			c.Set("client", r.URL.Query().Get("client"))
			return nil
		}),
		wsroom.OnClose(func(*wsroom.Conn, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.Closed++
		}))
	mux := http.NewServeMux()
	mux.Handle("/chat/{room}", s.hub)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go srv.Serve(ln) // until Shutdown
	fmt.Println(ln.Addr())

	sending, quiet := context.WithCancel(context.Background())
	defer quiet()
	go s.sendAll(sending)
	<-term.Done()
	for i := range lastBurst * serverRooms {
		s.send(i%serverRooms, lastSize)
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownBudget)
	defer cancel()
	if err := errors.Join(s.hub.Shutdown(ctx), srv.Shutdown(ctx)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(s.verdict)
}

// sendAll sends to one room after the other.
func (s *server) sendAll(ctx context.Context) {
	t := time.NewTicker(time.Second / serverPace)
	defer t.Stop()
	for i := 0; ctx.Err() == nil; i = (i + 1) % serverRooms {
		<-t.C
		s.send(i, 0)
	}
}

// send sends to a room and notes who is a member after that, and so was at the time.
func (s *server) send(room, size int) {
	name := strconv.Itoa(room)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers[room]++
	if err := s.hub.SendTextToRoom(name, fmt.Sprint(s.numbers[room], strings.Repeat(" ", size))); err != nil {
		panic(err) // the test sees no verdict
	}
	for _, c := range s.hub.Members(name) {
		if client, ok := c.Get("client"); ok {
			s.AtLeast[client.(string)] = s.numbers[room]
		}
	}
}
