package wsroomtest_test

import (
	"net/http"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// newDocs lets in who has a session.
func newDocs() http.Handler {
	hub := wsroom.New(wsroom.WithAuthorize(func(r *http.Request, room string) error {
		if _, err := r.Cookie("session"); err != nil {
			return &wsroom.StatusError{Status: http.StatusUnauthorized}
		}
		return nil
	}))
	mux := http.NewServeMux()
	mux.Handle("GET /docs/{doc}", hub)
	return mux
}

// testAuthorization would be TestAuthorization.
func testAuthorization(t *testing.T) {
	docs := newDocs()
	session := wsroomtest.WithCookies(&http.Cookie{Name: "session", Value: "ann's"})
	wsroomtest.Refused(t, docs, "/docs/plan", http.StatusUnauthorized)
	wsroomtest.Refused(t, docs, "/docs/plan", http.StatusForbidden, session, wsroomtest.WithOrigin("https://evil.example"))
	wsroomtest.Dial(t, docs, "/docs/plan", session)
}

// Who gets in, and what the others are told.
func ExampleRefused() {
	run(testAuthorization)
	// Output: PASS
}
