package kit

import (
	"net/http"
	"time"

	"github.com/wsroom/wsroom"
)

// AdmitFor is an authorizer that admits for d.
func AdmitFor(d time.Duration) wsroom.Option {
	return wsroom.WithAuthorize(func(*http.Request, string) error { return wsroom.Until(time.Now().Add(d)) })
}
