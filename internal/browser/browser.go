// Package browser opens pages in a headless Chromium, as their users would, for tests, and fails the test
// when a page complains: by an error or a warning, a dialog, or something that its policy forbids.
package browser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// Browser is a Chromium.
type Browser struct {
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
	// What chromedp doesn't know of a newer Chromium isn't worth a line in the log.
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return &Browser{ctx}
}

// Person is somebody at the browser, with cookies and a storage of their own.
type Person struct {
	t       *testing.T
	browser *Browser
	profile cdp.BrowserContextID
}

// Person returns somebody new, who leaves when t ends.
func (b *Browser) Person(t *testing.T) *Person {
	t.Helper()
	profile, err := target.CreateBrowserContext().Do(b.executor())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.DisposeBrowserContext(profile).Do(b.executor()); err != nil {
			t.Error(err)
		}
	})
	return &Person{t, b, profile}
}

// executor is for what is asked of the Chromium, not of a page.
func (b *Browser) executor() context.Context {
	return cdp.WithExecutor(b.ctx, chromedp.FromContext(b.ctx).Browser)
}
