package wsroom_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// passes say who may enter which room, and until when.
var passes = map[string]struct {
	room  string
	until time.Time
}{
	"red":     {"/staff", time.Now().Add(time.Hour)},
	"blue":    {"/lounge", time.Now().Add(time.Hour)},
	"expired": {"/staff", time.Now().Add(-time.Hour)},
}

// Who has no pass gets 401, who has one for another room 403, and who has one is let in for as long as it
// is good for; then the connection ends with close code 4401.
func ExampleWithAuthorize() {
	hub := wsroom.New(
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			token, _ := wsroom.BearerToken(r)
			pass, ok := passes[token]
			if !ok {
				return &wsroom.StatusError{Status: http.StatusUnauthorized, Message: "no pass"}
			}
			if pass.room != room {
				return &wsroom.StatusError{Status: http.StatusForbidden, Message: "not for this room"}
			}
			return wsroom.Until(pass.until)
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	for _, token := range []string{"red", "blue", "expired", "forged"} {
		header := http.Header{"Authorization": {"Bearer " + token}}
		ws, res, err := websocket.Dial(context.Background(), srv.URL+"/staff", &websocket.DialOptions{HTTPHeader: header})
		if err == nil {
			defer ws.CloseNow()
		}
		fmt.Println(token, res.StatusCode)
	}
	// Output:
	// red 101
	// blue 403
	// expired 401
	// forged 401
}
