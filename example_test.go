package wsroom_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
)

type message struct{ From, Text string }

// A chat room for each URL: what one member sends, all get.
func Example() {
	hub := wsroom.New(
		wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err != nil {
				return // the connection is ending; err says why
			}
			c.SendJSONToThisRoom(m)
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)

	srv := httptest.NewServer(mux) // http.ListenAndServe(":8080", mux)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, _ := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	bob, _, _ := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	ann.Write(ctx, websocket.MessageText, []byte(`{"From":"ann","Text":"hello"}`))
	_, p, err := bob.Read(ctx)
	fmt.Println(string(p), err)
	ann.CloseNow()
	bob.CloseNow()
	// Output: {"From":"ann","Text":"hello"} <nil>
}

// The hub behind chi, with rooms by path value, a check before the upgrade, and a snapshot for each
// newcomer.
func Example_chi() {
	hub := wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("doc")),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if _, err := r.Cookie("session"); err != nil {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			return nil
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			return c.SendText("the document so far") // before any message of the room
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	r := chi.NewRouter()
	r.Route("/docs", func(r chi.Router) {
		r.Handle("/{doc}/live", hub)
	})
	r.Post("/notice", func(w http.ResponseWriter, r *http.Request) {
		hub.SendTextToAll(r.FormValue("text")) // from anywhere
	})

	srv := httptest.NewServer(r)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	_, res, err := websocket.Dial(context.Background(), srv.URL+"/docs/plan/live", nil)
	fmt.Println(res.StatusCode, err != nil)
	// Output: 401 true
}

type userKey struct{}

func verify(token string) (user string, expires time.Time, err error) {
	if token != "secret" {
		return "", expires, errors.New("wrong token")
	}
	return "ann", time.Now().Add(time.Hour), nil
}

func renew(user any) (time.Time, error) { return time.Now().Add(time.Hour), nil }

// A browser's bearer token, checked before the upgrade and for as long as the connection lives.
func Example_authentication() {
	hub := wsroom.New(
		wsroom.WithSubprotocols("chat"),
		wsroom.WithRejectMode(wsroom.CloseFrame), // so that a browser sees 4401
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			token, _ := wsroom.BearerToken(r)
			user, expires, err := verify(token)
			if err != nil {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			*r = *r.WithContext(context.WithValue(r.Context(), userKey{}, user)) // for OnConnect and c.Context()
			return wsroom.Until(expires)
		}),
		wsroom.OnExpire(func(c *wsroom.Conn) (time.Time, error) {
			return renew(c.Context().Value(userKey{})) // without OnExpire, or by an error: 4401
		}),
	)

	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	for _, token := range []string{"secret", "guess"} {
		entry := "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
		ws, _, err := websocket.Dial(context.Background(), srv.URL, &websocket.DialOptions{Subprotocols: []string{"chat", entry}})
		if err != nil {
			log.Fatal(err)
		}
		for _, c := range hub.Members("/") {
			fmt.Println(c.Context().Value(userKey{}))
			c.Close(websocket.StatusNormalClosure, "")
		}
		_, _, err = ws.Read(context.Background())
		fmt.Println(ws.Subprotocol(), websocket.CloseStatus(err))
	}
	// Output:
	// ann
	// chat StatusNormalClosure
	// chat StatusCode(4401)
}
