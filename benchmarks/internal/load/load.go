// Package load is the client side of the benchmarks: raw WebSocket connections that send numbered
// messages into rooms and check what comes back. It is the same code for every library, costs
// little processor time, and trusts nobody: each member knows which messages it lost, got twice
// or got out of order.
package load

import "time"

// A Clock gives nanoseconds since it was made, from the monotonic clock. Send times travel inside
// the messages, so all members of a fleet share one.
type Clock struct{ origin time.Time }

// NewClock returns a clock that starts at 1: zero means "never" in this package.
func NewClock() Clock { return Clock{time.Now().Add(-1)} }

// Now is the time by this clock.
func (c Clock) Now() int64 { return int64(time.Since(c.origin)) }
