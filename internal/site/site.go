// Package site lets adapters of wsroom ask a hub which hosts and origins it allows, without an exported method for it. It
// knows no rules: wsroom sets the function that does.
package site

import "net/http"

// Check returns the status and the text with which the handler, which wsroom.New made, refuses a request by the host and
// the origin that it names; 0 where it doesn't refuse.
var Check func(handler http.Handler, r *http.Request) (status int, text string)
