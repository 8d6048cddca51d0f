// Package graphqlws is the server's side of graphql-transport-ws, the protocol of the npm package graphql-ws.
package graphqlws

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/graph-gophers/graphql-go"
	"github.com/wsroom/wsroom"
)

// Protocol is for wsroom.WithSubprotocols.
const Protocol = "graphql-transport-ws"

const (
	initTimeout   = 3 * time.Second
	maxOperations = 64 // of a connection, at a time
)

// Conn returns the connection for which a resolver runs.
func Conn(ctx context.Context) *wsroom.Conn {
	c, _ := ctx.Value(key{}).(*wsroom.Conn)
	return c
}

type key struct{}

// Serve is for wsroom.Serve: it runs the operations of a connection. init gets the payload of connection_init,
// which may be nil or null. If it returns an error, the client is refused. When Serve returns, no operation is
// running.
func Serve(c *wsroom.Conn, schema *graphql.Schema, init func(payload json.RawMessage) error) error {
	if c.Subprotocol() != Protocol {
		return end(4406, "Subprotocol not acceptable")
	}
	s := &server{Conn: c, schema: schema, init: init, ends: map[string]func(){}}
	defer s.running.Wait()
	ctx, cancel := context.WithCancel(context.WithValue(c.Context(), key{}, c))
	defer cancel()
	s.late = time.AfterFunc(initTimeout, func() { c.Close(4408, "Connection initialisation timeout") })
	defer s.late.Stop()
	for {
		text, err := c.ReadText(ctx)
		if err != nil {
			return err
		}
		var m message
		if json.Unmarshal([]byte(text), &m) != nil {
			return errInvalid
		}
		if err := s.take(ctx, m); err != nil {
			return err
		}
	}
}

// server is a connection with its operations.
type server struct {
	*wsroom.Conn
	schema  *graphql.Schema
	init    func(json.RawMessage) error
	known   bool // connection_init was accepted
	late    *time.Timer
	running sync.WaitGroup
	mu      sync.Mutex
	ends    map[string]func() // ends an operation that is running, by ID
}

type message struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

type operation struct {
	Query, OperationName string
	Variables            map[string]any
}

var errInvalid = end(4400, "Invalid message")

func end(code websocket.StatusCode, reason string) error {
	return websocket.CloseError{Code: code, Reason: reason}
}

func (s *server) take(ctx context.Context, m message) error {
	switch m.Type {
	case "connection_init":
		return s.begin(m.Payload)
	case "ping":
		return s.SendJSON(message{Type: "pong"})
	case "pong":
		return nil
	case "subscribe":
		return s.subscribe(ctx, m)
	case "complete":
		s.mu.Lock()
		defer s.mu.Unlock()
		if end := s.ends[m.ID]; end != nil {
			end()
			delete(s.ends, m.ID)
		}
		return nil
	}
	return errInvalid
}

func (s *server) begin(payload json.RawMessage) error {
	if s.known {
		return end(4429, "Too many initialisation requests")
	}
	if s.init(payload) != nil {
		return end(4403, "Forbidden")
	}
	s.known = true
	s.late.Stop()
	return s.SendJSON(message{Type: "connection_ack"})
}

func (s *server) subscribe(ctx context.Context, m message) error {
	var o operation
	if !s.known {
		return end(4401, "Unauthorized")
	}
	if json.Unmarshal(m.Payload, &o) != nil || m.ID == "" || o.Query == "" {
		return errInvalid
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends[m.ID] != nil {
		return end(4409, "Subscriber for "+m.ID+" already exists")
	}
	if len(s.ends) == maxOperations {
		return s.SendJSON(message{m.ID, "error", json.RawMessage(`[{"message":"there are too many operations"}]`)})
	}
	ctx, cancel := context.WithCancel(ctx)
	s.ends[m.ID] = cancel
	s.running.Go(func() {
		defer cancel()
		if err := s.run(ctx, m.ID, o); err != nil {
			s.Close(websocket.StatusInternalError, "")
		}
	})
	return nil
}

// run sends the responses of an operation. That of a query or a mutation is one.
func (s *server) run(ctx context.Context, id string, o operation) error {
	responses, err := s.schema.Subscribe(ctx, o.Query, o.OperationName, o.Variables)
	if err != nil {
		return err
	}
	last := message{id, "complete", nil}
	for r := range responses {
		r := r.(*graphql.Response)
		kind, content := "next", any(r)
		if r.Data == nil { // it can't be run
			kind, content = "error", r.Errors
		}
		payload, err := json.Marshal(content)
		if err != nil {
			return err
		}
		if kind == "error" {
			last = message{id, kind, payload}
			break
		}
		if s.SendJSON(message{id, kind, payload}) != nil {
			return nil // it is ending
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil { // else the client has ended it
		delete(s.ends, id)
		_ = s.SendJSON(last)
	}
	return nil
}
