package inspector_test

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
)

const secret = "of the administrators"

// administrators lets only those pass who have a session.
func administrators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := r.Cookie("session")
		if err != nil || subtle.ConstantTimeCompare([]byte(session.Value), []byte(secret)) != 1 {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// The inspector of a hub, behind the application's own authentication.
func Example() {
	hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
		c.Set("user", r.FormValue("user"))
		return nil
	}))
	in := inspector.New(hub,
		inspector.WithActions(),
		inspector.WithLabel(func(c *wsroom.Conn) string {
			user, _ := c.Get("user")
			return fmt.Sprint(user)
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("/debug/wsroom/", administrators(in))

	srv := httptest.NewServer(mux) // http.ListenAndServe(":8080", mux)
	defer srv.Close()
	defer in.Shutdown(context.Background()) // beside the hub's
	defer hub.Shutdown(context.Background())

	for _, session := range []string{"", secret} {
		r, _ := http.NewRequest("GET", srv.URL+"/debug/wsroom/", nil)
		r.AddCookie(&http.Cookie{Name: "session", Value: session})
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		res.Body.Close()
		fmt.Println(res.Status)
	}
	// Output:
	// 401 Unauthorized
	// 200 OK
}
