package browser

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var pictures = flag.Bool("pictures", false, "write the pictures of examples/README.md anew")

// Tab is a page that is open.
type Tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // guards what follows
	problems []string
	alone    bool // that it doesn't reach the server is no problem
}

// Open opens url in a new tab of 1200 × 760 pixels. The page must have nothing to complain of until the
// test ends.
func (b *Browser) Open(url string) *Tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	tab := &Tab{t: b.t, ctx: ctx}
	chromedp.ListenTarget(ctx, tab.hear)
	b.t.Cleanup(tab.check)
	tab.Do(log.Enable(), emulation.SetFocusEmulationEnabled(true), chromedp.EmulateViewport(1200, 760),
		chromedp.ActionFunc(func(ctx context.Context) error {
			const tell = `addEventListener("securitypolicyviolation", (e) => console.error("forbidden:", e.violatedDirective, e.blockedURI))`
			_, err := page.AddScriptToEvaluateOnNewDocument(tell).Do(ctx)
			return err
		}),
		chromedp.Navigate(url))
	return tab
}

// hear notes what a page complains of.
func (tab *Tab) hear(event any) {
	problem := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			args, _ := json.Marshal(e.Args)
			problem = fmt.Sprintf("console: %s", args)
		}
	case *runtime.EventExceptionThrown:
		problem = e.ExceptionDetails.Error()
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			problem = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *page.EventJavascriptDialogOpening:
		problem = "dialog: " + e.Message
		go func() { _ = chromedp.Run(tab.ctx, page.HandleJavaScriptDialog(true)) }() // it holds up the page
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	lost := strings.Contains(problem, "net::ERR_") || strings.Contains(problem, "WebSocket connection to ")
	if problem != "" && !(tab.alone && lost) {
		tab.problems = append(tab.problems, problem)
	}
}

func (tab *Tab) check() {
	_ = chromedp.Run(tab.ctx, chromedp.Evaluate("0", nil)) // what the page said before it was heard then
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, problem := range tab.problems {
		tab.t.Errorf("the page complains: %s", problem)
	}
}

// MayLoseServer is said before the server goes away: it is no complaint that it can't be reached.
func (tab *Tab) MayLoseServer() {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.alone = true
}

// Do runs actions in the tab.
func (tab *Tab) Do(actions ...chromedp.Action) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		tab.t.Fatal(err)
	}
}

// Close closes the tab as its user would.
func (tab *Tab) Close() {
	tab.t.Helper()
	tab.check()
	if err := chromedp.Cancel(tab.ctx); err != nil {
		tab.t.Error(err)
	}
}

// Click clicks on the element.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.Do(chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

// Write puts text into the element, over what was selected, and presses Enter.
func (tab *Tab) Write(selector, text string) {
	tab.t.Helper()
	tab.Do(chromedp.Focus(selector, chromedp.ByQuery, chromedp.NodeVisible), input.InsertText(text), chromedp.KeyEvent("\r"))
}

// Point moves the mouse.
func (tab *Tab) Point(x, y float64) {
	tab.t.Helper()
	tab.Do(chromedp.MouseEvent(input.MouseMoved, x, y))
}

// Wait waits until the JavaScript expression is truthy.
func (tab *Tab) Wait(expression string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	look := fmt.Sprintf(`new Promise((found) => {
		const look = () => (%s) ? found(true) : setTimeout(look, 10);
		look();
	})`, expression)
	if err := chromedp.Run(ctx, chromedp.Evaluate(look, nil, awaited)); err != nil {
		var text string
		_ = chromedp.Run(tab.ctx, chromedp.Evaluate("document.body.innerText", &text))
		tab.t.Fatalf("waited in vain for %s: %v; the page says:\n%s", expression, err, text)
	}
}

// WaitText waits until the element shows the text.
func (tab *Tab) WaitText(selector, text string) {
	tab.t.Helper()
	tab.Wait(fmt.Sprintf("document.querySelector(%s)?.innerText.includes(%s)", quoted(selector), quoted(text)))
}

func quoted(s string) string {
	p, _ := json.Marshal(s)
	return string(p)
}

// Eval returns the value of a JavaScript expression, once it has one.
func Eval[T any](tab *Tab, expression string) (value T) {
	tab.t.Helper()
	tab.Do(chromedp.Evaluate(expression, &value, awaited))
	return value
}

func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// Picture writes what the tab shows to examples/pictures, with -pictures.
func (tab *Tab) Picture(name string) {
	tab.t.Helper()
	if !*pictures {
		return
	}
	tab.Do(chromedp.ActionFunc(func(ctx context.Context) error {
		p, err := page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatWebp).WithQuality(80).Do(ctx)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join("..", "pictures", name+".webp"), p, 0o644)
	}))
}
