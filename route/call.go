package route

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/goroutine"
)

// maxCalls limits the questions that wait for one client's answer.
const maxCalls = 64

var (
	// ErrInHandler is returned by [Call] in a handler of the same connection. The answer couldn't be read
	// before the handler returns.
	ErrInHandler = errors.New("route: a handler can't wait for its own client")

	// ErrTooManyCalls is returned by [Call] while 64 questions wait for the client's answer.
	ErrTooManyCalls = errors.New("route: too many questions wait for the client's answer")
)

// PeerError is the error by which a client answers a question. It isn't an [*Error], so a handler that
// returns it doesn't show another client what this one has said.
type PeerError struct {
	Code    string
	Message string
}

func (e *PeerError) Error() string {
	return "route: the client answers: " + describe(e.Code, e.Message)
}

// Call asks the client a question and returns its answer, decoded into a Resp. An answer without data is the
// zero Resp. Call waits until the answer has come, ctx is done, the time of [WithTimeout] has passed, or the
// connection is ending. All questions to a connection end with it. The error then is ctx's cause,
// [context.DeadlineExceeded], or the cause of the connection's end, wrapped. It is a [*PeerError] if the
// client answers with an error, and a [*wsroom.DecodeError] if the answer doesn't decode. Call also returns
// the errors of [wsroom.Conn.SendJSON], [ErrInHandler] and [ErrTooManyCalls].
//
// Call may be used concurrently. In a handler of the same connection it returns [ErrInHandler] at once: ask
// on a goroutine of your own. In another callback of the same connection, such as [wsroom.OnConnect]'s, it
// would wait in vain for its whole time. For the sake of all that wait, don't have a handler of one
// connection wait for another connection whose handlers may wait for the first.
func Call[Resp any](ctx context.Context, r *Router, c *wsroom.Conn, typ string, req any) (resp Resp, err error) {
	data, err := r.ask(ctx, c, typ, req)
	if err == nil {
		err = r.decode(data, &resp)
	}
	if err != nil {
		var none Resp
		return none, err
	}
	return resp, nil
}

// ask sends a question and returns the data of its answer.
func (r *Router) ask(ctx context.Context, c *wsroom.Conn, typ string, req any) (json.RawMessage, error) {
	p := r.peer(c)
	if p.isHandling() {
		return nil, ErrInHandler
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()

	id, answered, err := p.begin()
	if err != nil {
		return nil, err
	}
	defer p.end(id)
	if err := c.SendJSON(map[string]any{r.fields.Type: typ, r.fields.ID: id, r.fields.Data: req}); err != nil {
		return nil, err
	}

	select {
	case m := <-answered:
		return r.answer(m)
	case <-ctx.Done():
		return nil, fmt.Errorf("route: %q wasn't answered: %w", typ, context.Cause(ctx))
	case <-c.Context().Done():
		return nil, fmt.Errorf("route: %q wasn't answered: %w", typ, context.Cause(c.Context()))
	}
}

// answer returns the data of an answer, or the error that it is.
func (r *Router) answer(m map[string]json.RawMessage) (json.RawMessage, error) {
	failed := m[r.fields.Error]
	if len(failed) == 0 || string(failed) == "null" {
		return m[r.fields.Data], nil
	}
	fields := map[string]json.RawMessage{}
	e := new(PeerError)
	if json.Unmarshal(failed, &fields) != nil {
		_ = json.Unmarshal(failed, &e.Message) // an error may be a text
		return nil, e
	}
	_ = json.Unmarshal(fields[r.fields.Code], &e.Code)
	_ = json.Unmarshal(fields[r.fields.Message], &e.Message)
	return nil, e
}

// settle gives an answer to the question with that id. A late answer is dropped.
func (r *Router) settle(c *wsroom.Conn, id json.RawMessage, m map[string]json.RawMessage) {
	if number, err := strconv.ParseUint(string(id), 10, 64); err == nil {
		r.peer(c).settle(number, m)
	}
}

// peer is what a Router knows of a connection. The connection keeps it, so it ends with the connection.
type peer struct {
	handler atomic.Uint64 // the ID of the goroutine in which a handler runs; 0: none does

	mu      sync.Mutex // guards the rest
	last    uint64     // id of the last question
	waiting map[uint64]chan<- map[string]json.RawMessage
}

// peer returns what the Router knows of c.
func (r *Router) peer(c *wsroom.Conn) *peer {
	if p, ok := r.peers.Get(c); ok {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.peers.Get(c); ok {
		return p
	}
	p := &peer{waiting: map[uint64]chan<- map[string]json.RawMessage{}}
	r.peers.Set(c, p)
	return p
}

// enter and exit surround a handler.
func (p *peer) enter() { p.handler.Store(uint64(goroutine.Current())) }
func (p *peer) exit()  { p.handler.Store(0) }

// isHandling reports whether this goroutine runs a handler of the connection.
func (p *peer) isHandling() bool {
	running := p.handler.Load()
	return running != 0 && running == uint64(goroutine.Current())
}

// begin returns the id of a new question, and where its answer comes.
func (p *peer) begin() (id uint64, answered <-chan map[string]json.RawMessage, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) >= maxCalls {
		return 0, nil, ErrTooManyCalls
	}
	p.last++
	ch := make(chan map[string]json.RawMessage, 1)
	p.waiting[p.last] = ch
	return p.last, ch, nil
}

func (p *peer) end(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

func (p *peer) settle(id uint64, m map[string]json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answered := p.waiting[id]; answered != nil {
		delete(p.waiting, id)
		answered <- m // it has space for one
	}
}
