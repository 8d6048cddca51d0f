// Package browser opens the examples' pages in a headless Chromium, as their users would, and fails the
// test when a page complains: by an error or a warning, a dialog, or something that its policy forbids.
package browser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// Browser is one profile of a Chromium, with cookies and a storage of its own.
type Browser struct {
	t   *testing.T
	ctx context.Context
}

// Start starts a Chromium, which ends with the test. Where none is installed it skips the test; with
// WSROOM_INTEROP=all it fails.
func Start(t *testing.T) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const how = "chromium is missing: apt-get install chromium"
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	// Not t.Context, which is over before the pages are asked for their complaints.
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))...)
	t.Cleanup(cancel)
	return newProfile(t, ctx)
}

// Other is somebody else's profile.
func (b *Browser) Other() *Browser {
	b.t.Helper()
	return newProfile(b.t, b.ctx, chromedp.WithNewBrowserContext())
}

func newProfile(t *testing.T, ctx context.Context, opts ...chromedp.ContextOption) *Browser {
	t.Helper()
	ctx, cancel := chromedp.NewContext(ctx, opts...)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return &Browser{t, ctx}
}
