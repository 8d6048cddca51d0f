package interop_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/wsroom/wsroom"
)

// chromium starts a headless Chromium and returns a context for its tab.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		path = "chromium"
	}
	need(t, path, "apt-get install chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {})) // it logs events that it doesn't know
	t.Cleanup(cancel)
	return ctx
}

// browse opens clients/browser.html of the server at site in Chromium, has its page go through the session,
// closes the tab, and returns "done" or what went wrong.
func browse(t *testing.T, site string, s session) (result string) {
	t.Helper()
	ctx := chromium(t)
	s.url = "ws" + strings.TrimPrefix(s.url, "http")
	args, _ := json.Marshal(s.args())
	wait := func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
	err := chromedp.Run(ctx,
		chromedp.Navigate(site+"/clients/browser.html#"+url.PathEscape(string(args))),
		chromedp.Evaluate("window.result", &result, wait))
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	_ = chromedp.Run(ctx, page.Close()) // it may be gone before it answers
	return result
}

func runChromium(t *testing.T, s session) {
	if result := browse(t, strings.TrimSuffix(s.url, "/room"), s); result != "done" {
		t.Errorf("the page says: %s", result)
	}
}

// status notes with what a request was answered.
type status struct {
	http.ResponseWriter
	code *atomic.Int32
}

func (s status) WriteHeader(code int) {
	s.code.Store(int32(code))
	s.ResponseWriter.WriteHeader(code)
}

func (s status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// A page of another origin is refused before any callback.
func TestChromiumPageOfAnotherOriginIsRefused(t *testing.T) {
	called := func() { t.Error("a callback was called") }
	hub := wsroom.New(
		wsroom.WithRoom(func(*http.Request) (string, error) { called(); return "room", nil }),
		wsroom.WithAuthorize(func(*http.Request, string) error { called(); return nil }),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { called(); return nil }))
	var code atomic.Int32
	own := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeHTTP(status{w, &code}, r)
	}))
	other := serve(t, http.NotFoundHandler())
	if result := browse(t, other, session{own + "/room", "", true}); result != "close 1006, waiting for open" {
		t.Errorf("the page says: %s", result)
	}
	if code.Load() != http.StatusForbidden {
		t.Errorf("status %d, want 403", code.Load())
	}
}
