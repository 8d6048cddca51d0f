// Package site lets adapters of wsroom ask a hub which hosts and origins it allows.
package site

import "net/http"

// Check returns the status and the text with which the hub, a *wsroom.Hub, refuses a request by the host and the origin
// that it names; 0 where it doesn't refuse. It is set by wsroom.
var Check func(hub any, r *http.Request) (status int, text string)
