package request

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
)

// A request's context becomes a connection's in three steps:
//
//	WithDeadline   The application's functions get this context during the handshake. The real context is
//	               created only when a function waits for it: a child of the request's context stays
//	               registered there, and would live as long as the connection.
//	Deadline.Lift  Once the request is admitted, OnConnect gets it with the context that the application made of
//	               it, without the deadline, which would end the connection.
//	Detach         The connection keeps the values, without the server's cancellation, and with a copy of
//	               chi's route context, which chi uses again for other requests.

// Deadline is a request's context with a deadline. [WithDeadline] makes it.
type Deadline struct {
	outer context.Context
	at    time.Time

	mu     sync.Mutex      // guards the rest
	ctx    context.Context // the real context; nil until it is needed
	cancel context.CancelFunc
	ended  bool
	lifted bool // only the outer context counts
}

// WithDeadline returns ctx with a deadline. [Deadline.End] must be called when the context isn't needed any
// more.
func WithDeadline(ctx context.Context, at time.Time) *Deadline {
	return &Deadline{outer: ctx, at: at}
}

// At returns the time of this deadline, whatever deadline the outer context has.
func (d *Deadline) At() time.Time { return d.at }

// Passed reports whether the time of this deadline has passed.
func (d *Deadline) Passed() bool { return !time.Now().Before(d.at) }

// End cancels the context.
func (d *Deadline) End() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.cancel != nil {
		d.cancel()
	}
}

// real returns the context that d stands for. It creates the context if there is none yet.
func (d *Deadline) real() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lifted {
		return d.outer
	}
	if d.ctx == nil {
		d.ctx, d.cancel = context.WithDeadline(d.outer, d.at)
		if d.ended {
			d.cancel()
		}
	}
	return d.ctx
}

// Deadline returns the earlier of this deadline and the outer context's.
func (d *Deadline) Deadline() (time.Time, bool) {
	d.mu.Lock()
	lifted := d.lifted
	d.mu.Unlock()
	if outer, ok := d.outer.Deadline(); lifted || ok && outer.Before(d.at) {
		return outer, ok
	}
	return d.at, true
}

// Done returns a channel that is closed when the deadline has passed, when [Deadline.End] was called, or
// when the outer context is done.
func (d *Deadline) Done() <-chan struct{} { return d.real().Done() }

// Err returns why the context is done, or nil if it isn't.
func (d *Deadline) Err() error { return d.real().Err() }

// Value asks the real context if there is one, so that derived contexts find it.
func (d *Deadline) Value(key any) any {
	d.mu.Lock()
	ctx := d.ctx
	if ctx == nil || d.lifted {
		ctx = d.outer
	}
	d.mu.Unlock()
	return ctx.Value(key)
}

// Lift returns r with a context that has the values of r's context, which is d or a context that the
// application derived from it. Its deadline and cancellation are those of d's outer context.
func (d *Deadline) Lift(r *http.Request) *http.Request {
	if ctx := r.Context(); ctx != d {
		return r.WithContext(lifted{d.outer, ctx})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lifted = true
	return r
}

// lifted has the values of one context, and everything else from the context that it embeds.
type lifted struct {
	context.Context
	values context.Context
}

func (l lifted) Value(key any) any { return l.values.Value(key) }

// Detached has a context's values without its deadline and cancellation. It has a copy of chi's route
// context, made when [Detach] was called: chi uses the original for other requests once the handler has
// returned. It is used as a context by its address.
type Detached struct {
	values context.Context
	route  *chi.Context
}

// Detach returns a context that outlives the request. It also makes chi's original route context forget the
// request: ctx holds that route context, and its strings would keep the whole request line in memory.
func Detach(ctx context.Context) Detached {
	if d, ok := ctx.(*Deadline); ok {
		ctx = d.outer
	}
	d := Detached{values: bare(ctx)}
	if route := chi.RouteContext(ctx); route != nil {
		d.route = copyRoute(route)
		*route = *copyRoute(route)
	}
	return d
}

// copyRoute copies what handlers see of a route context, including the strings. chi's private fields aren't
// needed after the request has been routed.
func copyRoute(route *chi.Context) *chi.Context {
	own := chi.NewRouteContext()
	own.Routes = route.Routes
	own.RoutePath = strings.Clone(route.RoutePath)
	own.RouteMethod = strings.Clone(route.RouteMethod)
	own.URLParams = chi.RouteParams{Keys: slices.Clone(route.URLParams.Keys), Values: cloneAll(route.URLParams.Values)}
	own.RoutePatterns = slices.Clone(route.RoutePatterns)
	return own
}

func cloneAll(list []string) []string {
	own := make([]string, len(list))
	for i, s := range list {
		own[i] = strings.Clone(s)
	}
	return own
}

// Value returns the context's value. For chi's route context it returns the copy.
func (d *Detached) Value(key any) any {
	if key == chi.RouteCtxKey && d.route != nil {
		return d.route
	}
	return d.values.Value(key)
}

// A Detached is never done. It must not be asked for its cause, as it would answer with the request's; contexts
// that are derived from it have causes of their own.

// Deadline returns no time.
func (*Detached) Deadline() (t time.Time, ok bool) { return t, false }

// Done returns nil.
func (*Detached) Done() <-chan struct{} { return nil }

// Err returns nil.
func (*Detached) Err() error { return nil }
