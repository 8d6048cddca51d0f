package inspector_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
)

// TestEveryPathChecksHostAndOrigin: what WithHosts and the origin check refuse gets nothing on any path: no name, and no
// file.
func TestEveryPathChecksHostAndOrigin(t *testing.T) {
	s := newSite(t, inspector.WithHubOptions(wsroom.WithHosts("admin.example")))
	s.dial("/secret-room?name=secret-name")
	srv := httptest.NewServer(s.mux)
	defer srv.Close()
	for _, c := range []struct {
		host, origin string
		ok           bool
	}{
		{"admin.example", "", true},
		{"admin.example:8080", "http://admin.example:8080", true},
		{"evil.example", "", false},
		{"evil.example", "http://evil.example", false},
		{"admin.example", "http://evil.example", false},
	} {
		for _, path := range []string{"", "style.css", "inspector.js", "icon.svg", "stats.json?search=secret", "other", "live"} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				r, err := http.NewRequest(method, srv.URL+"/look/"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = c.host
				if c.origin != "" {
					r.Header.Set("Origin", c.origin)
				}
				if path == "live" {
					for _, h := range [][2]string{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}} {
						r.Header.Set(h[0], h[1])
					}
				}
				if path == "live" && (method != "GET" || c.ok) {
					continue // no handshake, or one that goes on
				}
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				refused := res.StatusCode == http.StatusForbidden
				if err != nil || refused == c.ok || refused && method != http.MethodHead && !bytes.Contains(body, []byte(" not allowed")) {
					t.Errorf("%s /look/%s, host %s, origin %q: status %d, %.80q, %v", method, path, c.host, c.origin, res.StatusCode, body, err)
				}
			}
		}
	}
}
