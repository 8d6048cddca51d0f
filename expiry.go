package wsroom

import (
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// statusExpired tells a client that what it was admitted by has expired: 4000 and HTTP's 401.
const statusExpired websocket.StatusCode = 4000 + http.StatusUnauthorized

// until is an instruction to the hub, returned as an error.
type until struct{ time time.Time }

func (u until) Error() string { return "wsroom: admitted until " + u.time.Format(time.RFC3339) }

// Until is what the function of WithAuthorize returns, wrapped or not, to admit a request until t, such
// as the expiry of its token; see OnExpire. The zero time is no limit, and a time that has passed
// refuses the request with 401.
func Until(t time.Time) error { return until{t} }

// OnExpire calls f when the time of Until has come. A later time, or the zero time for no further
// limit, renews the connection; a time that isn't in the future, or an error, ends it with ErrExpired
// and close code 4401, an error that is a websocket.CloseError with its code and reason. Without
// OnExpire the connection ends at once. f waits its turn like any other callback (but runs beside
// Serve): a connection whose callback runs over its time ends when that has returned.
func OnExpire(f func(c *Conn) (until time.Time, err error)) Option {
	return func(c *config) error {
		c.onExpire = f
		return notNil("OnExpire", f == nil)
	}
}

// expireAt sets the time of a connection that has none yet, unless it is zero.
func (c *Conn) expireAt(t time.Time) {
	if t.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		c.expiry = time.AfterFunc(time.Until(t), c.expired)
	}
}

// expired is what the timer calls.
func (c *Conn) expired() {
	if c.hub.cfg.onExpire == nil {
		c.end(endingExpired(nil))
		return
	}
	c.mu.Lock()
	if c.ending == nil {
		c.postLocked(event{name: "OnExpire", run: (*Conn).renew})
	}
	c.mu.Unlock()
	c.runEventsAsync()
}

// renew asks OnExpire what is to be, in the connection's turn.
func (c *Conn) renew(string) {
	if c.isEnded() {
		return
	}
	t, err := c.hub.cfg.onExpire(c)
	if err != nil || !t.IsZero() && !t.After(time.Now()) {
		c.end(endingExpired(err))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil && !t.IsZero() {
		c.expiry.Reset(time.Until(t))
	}
}

// endingExpired is the end at the time of Until. err is OnExpire's.
func endingExpired(err error) ending {
	e := ending{cause: ErrExpired, label: "expired", code: statusExpired, reason: "expired", budget: closeBudget}
	if err != nil {
		e.cause = fmt.Errorf("%w: %w", ErrExpired, err)
		e.closeBy(err)
	}
	return e
}
