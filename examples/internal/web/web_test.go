package web

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// A page gets its own files and the shared ones, and its policy on each of them.
func TestFiles(t *testing.T) {
	var own fs.FS = fstest.MapFS{
		"index.html": {Data: []byte("<title>own")},
		"page.css":   {Data: []byte("/* own */")},
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", Files(own))
	mux.Handle("GET /r/{room}", File(own, "index.html"))
	for _, c := range []struct {
		path, has string
		status    int
	}{
		{"/", "<title>own", 200},
		{"/r/any", "<title>own", 200},
		{"/page.css", "/* own */", 200},
		{"/page.js", "export", 200},
		{"/wsroom.js", "export", 200},
		{"/web.go", "", 404},
		{"/../web.go", "", 307},
		{"/nothing", "", 404},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s: %d %.40q", c.path, w.Code, w.Body)
		}
		if policy := w.Header().Get("Content-Security-Policy"); c.status != 307 && !strings.HasPrefix(policy, "default-src 'self';") {
			t.Errorf("%s has the policy %q", c.path, policy)
		}
	}
}
