package wsroom

import (
	"context"
	"errors"
	"net/http"

	"github.com/wsroom/wsroom/internal/route"
)

// Tracer is what an Observer may be besides, to trace what a hub does. To have the metrics of one Observer
// and the tracing of another, give WithObserver a struct{ Observer; Tracer } that embeds both.
type Tracer interface {
	// Start is told that something begins: an "upgrade", or a callback by the name of the option that
	// registered it, such as "OnConnect" or "OnJSON". route is that of Observer. Start must return at once
	// and may be called concurrently. end is called once, when that which began is over, on the same
	// goroutine, with the error of an upgrade that was refused, of a callback that panicked (ErrPanic) or
	// ended the connection by one, or of a message that didn't decode (*DecodeError).
	//
	// ctx is the request's for an upgrade, and Conn.Context for a callback. What an upgrade's Start adds to
	// it, the functions of WithRoom, WithAuthorize and OnConnect find in their request's context, and
	// everyone in Conn.Context: so a callback can be linked to its connection's upgrade. The context that
	// Start returns for a callback is used by nobody.
	Start(ctx context.Context, name, route string) (traced context.Context, end func(err error))
}

// errAborted ends the span of an upgrade in which something panicked.
var errAborted = errors.New("wsroom: upgrade aborted")

// tracedUpgrade is upgrade within the Tracer's bounds.
func (h *Hub) tracedUpgrade(w http.ResponseWriter, r *http.Request) (c *Conn, _ *http.Request) {
	if h.tracer == nil {
		c, r, _ = h.upgrade(w, r)
		return c, r
	}
	ctx, end := h.tracer.Start(r.Context(), "upgrade", route.Pattern(r))
	err := errAborted
	defer func() {
		ended := false
		defer func() {
			if !ended && c != nil { // the Tracer panicked
				h.begin(c, func() {})
			}
		}()
		end(err)
		ended = true
	}()
	c, r, err = h.upgrade(w, r.WithContext(ctx))
	return c, r
}

// trace tells the Tracer of a callback and returns what ends it; nil without a Tracer.
func (c *Conn) trace(name string) (end func(error)) {
	if c.hub.tracer != nil {
		_, end = c.hub.tracer.Start(c.Context(), name, c.route)
	}
	return end
}

// trace is for callbacks that belong to no connection.
func (h *Hub) trace(name string) (end func(error)) {
	if h.tracer != nil {
		_, end = h.tracer.Start(context.Background(), name, "")
	}
	return end
}
