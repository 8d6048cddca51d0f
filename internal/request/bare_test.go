package request

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// own is a context of somebody else's type.
type own struct{ context.Context }

// What is left has the same values, and none of the contexts that a request is only cancelled by.
func TestBareContextHasTheValues(t *testing.T) {
	type key int
	values := context.WithValue(context.Background(), key(1), "one")
	cancelled, cancel := context.WithCancelCause(values)
	defer cancel(nil)
	timed, stop := context.WithTimeout(cancelled, time.Hour)
	defer stop()
	again := context.WithValue(timed, key(2), "two")
	for _, test := range []struct{ of, want context.Context }{
		{cancelled, values}, {timed, values}, {values, values}, {again, again}, {own{timed}, own{timed}},
		{context.Background(), context.Background()},
	} {
		if got := bare(test.of); got != test.want {
			t.Errorf("bare(%v) is %v, want %v", test.of, got, test.want)
		}
	}
}

// A request of net/http has two contexts that are only cancelled. They aren't kept.
func TestBareContextOfAServer(t *testing.T) {
	left := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx := bare(r.Context())
		if ctx.Done() != nil {
			left <- "it can be cancelled"
		} else if ctx.Value(http.ServerContextKey) == nil || ctx.Value(http.LocalAddrContextKey) == nil {
			left <- "values are missing"
		}
		close(left)
	}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if what, bad := <-left; bad {
		t.Error(what)
	}
}
