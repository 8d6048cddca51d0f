package wsroomjs_test

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"testing"

	"github.com/wsroom/wsroom/wsroomjs"
)

func get(method, path string, header ...string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	mux.Handle("/js/", wsroomjs.Handler())
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// Each file is served with its type and a tag, and may be kept for ever under its hashed path only.
func TestHandlerServesTheFiles(t *testing.T) {
	const asked, forever = "no-cache", "public, max-age=31536000, immutable"
	old := "/js/wsroom.0123456789abcdef.js" // of another version
	for _, c := range []struct{ path, file, contentType, cache string }{
		{"/js/wsroom.js", "wsroom.js", "text/javascript; charset=utf-8", asked},
		{"/js/" + wsroomjs.Path(), "wsroom.js", "text/javascript; charset=utf-8", forever},
		{old, "wsroom.js", "text/javascript; charset=utf-8", asked},
		{"/js/request.js", "request.js", "text/javascript; charset=utf-8", asked},
		{"/js/request.d.ts", "request.d.ts", "text/plain; charset=utf-8", asked},
		{"/js/deep/wsroom.d.ts", "wsroom.d.ts", "text/plain; charset=utf-8", asked},
	} {
		want, err := fs.ReadFile(wsroomjs.FS, c.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			res := get(method, c.path)
			header, body := res.Header(), res.Body.String()
			if res.Code != 200 || header.Get("Content-Type") != c.contentType || header.Get("Cache-Control") != c.cache {
				t.Errorf("%s %s: %d %v", method, c.path, res.Code, header)
			}
			if method == http.MethodGet && body != string(want) || method == http.MethodHead && body != "" {
				t.Errorf("%s %s: %.40q", method, c.path, body)
			}
			if again := get(method, c.path, "If-None-Match", header.Get("ETag")); again.Code != http.StatusNotModified {
				t.Errorf("%s %s asked again: %d", method, c.path, again.Code)
			}
		}
	}
}

func TestHandlerRefusesAllElse(t *testing.T) {
	for path, want := range map[string]int{
		"/js/": 404, "/js/package.json": 404, "/js/embed.go": 404, "/js/wsroom.0123.js": 404, "/js/wsroom.xxxxxxxxxxxxxxxx.js": 404,
	} {
		if res := get(http.MethodGet, path); res.Code != want {
			t.Errorf("%s: %d, want %d", path, res.Code, want)
		}
	}
	if res := get(http.MethodPost, "/js/wsroom.js"); res.Code != 405 || res.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, %v", res.Code, res.Header())
	}
}

// The npm package has the version of the changelog's latest release; before the first, 0.0.0.
func TestVersionIsTheChangelogs(t *testing.T) {
	changelog, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "0.0.0"
	if release := regexp.MustCompile(`(?m)^## \[?v?(\d+\.\d+\.\d+[-.\w]*)`).FindSubmatch(changelog); release != nil {
		want = string(release[1])
	}
	text, err := fs.ReadFile(wsroomjs.FS, "package.json")
	if err != nil {
		t.Fatal(err)
	}
	var npm struct{ Version string }
	if err := json.Unmarshal(text, &npm); err != nil {
		t.Fatal(err)
	}
	if npm.Version != want {
		t.Errorf("package.json has %q, the changelog %q", npm.Version, want)
	}
}
