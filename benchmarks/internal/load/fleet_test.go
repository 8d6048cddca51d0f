package load

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// A relay is a WebSocket server of one room, just good enough for a fleet. spoil may change what
// each member gets.
type relay struct {
	mu      sync.Mutex
	members []net.Conn
	seen    int
	spoil   func(message, member int, frame []byte) []byte
}

func (s *relay) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	s.mu.Lock()
	s.members = append(s.members, conn)
	s.mu.Unlock()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: "+acceptKey+"\r\n\r\n")
	for payload, err := readMasked(buffered.Reader); err == nil; payload, err = readMasked(buffered.Reader) {
		s.send(serverFrame(0x81, payload))
	}
	_ = conn.Close()
}

func (s *relay) send(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	for i, conn := range s.members {
		_, _ = conn.Write(s.spoil(s.seen, i, frame))
	}
}

func readMasked(r *bufio.Reader) ([]byte, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if head[0] != 0x81 || head[1] != 0x80|126 {
		return nil, errors.New("not a medium text frame")
	}
	payload := make([]byte, binary.BigEndian.Uint16(head[2:]))
	_, err := io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= head[4+i%4]
	}
	return payload, err
}

// flooded runs a short flood over a relay and returns what the fleet saw.
func flooded(t *testing.T, secure bool, spoil func(message, member int, frame []byte) []byte) Totals {
	t.Helper()
	server := httptest.NewUnstartedServer(&relay{spoil: spoil})
	defer server.Close()
	plan := Plan{Rooms: 1, Members: 5, Size: 200}
	if secure {
		server.StartTLS()
		plan.Trusted = append(plan.Trusted, server.Certificate())
	} else {
		server.Start()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f, err := Connect(ctx, []string{server.Listener.Addr().String()}, Plain, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	before := f.Begin()
	flood, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if err := f.Flood(flood, 8, 1); err != nil {
		t.Fatal(err)
	}
	if f.End() == before {
		t.Fatal("nothing was delivered")
	}
	if err := f.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return f.Totals()
}

func TestFleetCountsEveryMessage(t *testing.T) {
	for _, secure := range []bool{false, true} {
		got := flooded(t, secure, func(_, _ int, frame []byte) []byte { return frame })
		if got.Lost+got.Doubled+got.Reordered+got.Foreign+got.Ended != 0 {
			t.Errorf("TLS %t: %+v", secure, got)
		}
		if got.P50 <= 0 || got.P99 < got.P50 || got.Max < got.P99 {
			t.Errorf("TLS %t: latencies %v, %v, %v", secure, got.P50, got.P99, got.Max)
		}
	}
}

func TestFleetNoticesALostAndADoubledMessage(t *testing.T) {
	got := flooded(t, true, func(message, member int, frame []byte) []byte {
		switch {
		case message == 4 && member == 3:
			return nil
		case message == 5 && member == 4:
			return append(frame[:len(frame):len(frame)], frame...)
		}
		return frame
	})
	if got.Lost != 1 || got.Doubled != 1 {
		t.Errorf("lost %d, doubled %d; want 1 and 1", got.Lost, got.Doubled)
	}
}

func TestConnectFailsOnARefusedHandshake(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := Connect(t.Context(), []string{server.Listener.Addr().String()}, Plain, Plan{Rooms: 1, Members: 3, Size: 200}); err == nil {
		t.Error("no error")
	}
}

// Over TLS a fleet connects to no other server than those whose certificates it was given.
func TestConnectTrustsItsServersAlone(t *testing.T) {
	server := httptest.NewTLSServer(&relay{})
	defer server.Close()
	other := *server.Certificate()
	other.Raw = append([]byte{}, other.Raw...)
	other.Raw[len(other.Raw)-1] ^= 1
	plan := Plan{Rooms: 1, Members: 1, Size: 200, Trusted: []*x509.Certificate{&other}}
	if f, err := Connect(t.Context(), []string{server.Listener.Addr().String()}, Plain, plan); err == nil {
		f.Close()
		t.Error("no error")
	}
}
