package wsroom

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
)

// limited is a request's context with a deadline of the hub's. It is made in full only when somebody
// waits for it, which few functions do: what is registered with the request's context stays there, and
// the connection keeps that for its life.
type limited struct {
	context.Context
	deadline time.Time

	mu     sync.Mutex      // guards the rest
	ctx    context.Context // in full; nil until wanted
	cancel context.CancelFunc
	over   bool
}

func (l *limited) full() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithDeadline(l.Context, l.deadline)
		if l.over {
			l.cancel()
		}
	}
	return l.ctx
}

// end cancels the context.
func (l *limited) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.cancel != nil {
		l.cancel()
	}
}

func (l *limited) Deadline() (time.Time, bool) {
	if outer, ok := l.Context.Deadline(); ok && outer.Before(l.deadline) {
		return outer, true
	}
	return l.deadline, true
}

func (l *limited) Done() <-chan struct{} { return l.full().Done() }

func (l *limited) Err() error { return l.full().Err() }

// Value asks the full context, if there is one, so that contexts derived from it find it.
func (l *limited) Value(key any) any {
	l.mu.Lock()
	ctx := l.ctx
	l.mu.Unlock()
	if ctx == nil {
		ctx = l.Context
	}
	return ctx.Value(key)
}

// lifted has the values of a context and, for the rest, is the one that this was made from.
type lifted struct {
	context.Context
	values context.Context
}

func (l lifted) Value(key any) any { return l.values.Value(key) }

// detached has a context's values without its deadline and cancellation, and chi's route context as
// it is now: chi uses the original for other requests once the handler has returned.
type detached struct {
	context.Context
	route *chi.Context
}

// detach has the original route context forget the request, too, whose whole request line its strings
// would keep: ctx holds it.
func detach(ctx context.Context) detached {
	d := detached{Context: context.WithoutCancel(ctx)}
	if route := chi.RouteContext(ctx); route != nil {
		d.route = copyRoute(route)
		*route = *copyRoute(route)
	}
	return d
}

// copyRoute copies what handlers see of a route context, strings included. What chi keeps to itself is
// of no use once the request has been routed.
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

func (d *detached) Value(key any) any {
	if key == chi.RouteCtxKey && d.route != nil {
		return d.route
	}
	return d.Context.Value(key)
}
