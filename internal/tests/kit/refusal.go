package kit

import (
	"net/http"

	"github.com/wsroom/wsroom"
)

// Deny refuses every request.
func Deny(status int) wsroom.Option {
	return wsroom.WithAuthorize(func(*http.Request, string) error { return &wsroom.StatusError{Status: status} })
}
