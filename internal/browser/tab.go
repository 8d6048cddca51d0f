package browser

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/debugger"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

var pictures = flag.Bool("pictures", false, "write the pictures of examples/README.md anew")

// Tab is a page that is open.
type Tab struct {
	t      *testing.T
	ctx    context.Context
	closed bool
	frozen chan struct{}

	mu       sync.Mutex // guards what follows
	problems []string
	forgiven []string
}

// Open opens url in a window of 1200 × 760 pixels. The page must have nothing to complain of until the
// test ends, but with one of the forgiven texts.
func (p *Person) Open(url string, forgiven ...string) *Tab {
	p.t.Helper()
	tab := p.window()
	tab.Forgive(forgiven...)
	tab.Do(chromedp.Navigate(url))
	return tab
}

func (p *Person) window() *Tab {
	p.t.Helper()
	b := p.browser
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(p.profile).WithNewWindow(true).Do(b.executor())
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
	p.t.Cleanup(cancel)
	tab := &Tab{t: p.t, ctx: ctx, frozen: make(chan struct{}, 1)}
	chromedp.ListenTarget(ctx, tab.hear)
	if err := chromedp.Run(ctx); err != nil { // the tab lives as long as the context of its first Run
		p.t.Fatal(err)
	}
	p.t.Cleanup(tab.check)
	tab.Do(log.Enable(), emulation.SetFocusEmulationEnabled(true), chromedp.EmulateViewport(1200, 760),
		chromedp.ActionFunc(func(ctx context.Context) error {
			const tell = `addEventListener("securitypolicyviolation", (e) => console.error("forbidden:", e.violatedDirective, e.blockedURI))`
			_, err := page.AddScriptToEvaluateOnNewDocument(tell).Do(ctx)
			return err
		}))
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
	case *debugger.EventPaused:
		select {
		case tab.frozen <- struct{}{}:
		default:
		}
	case *page.EventJavascriptDialogOpening:
		problem = "dialog: " + e.Message
		go func() { _ = chromedp.Run(tab.ctx, page.HandleJavaScriptDialog(true)) }() // it holds up the page
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	forgiven := slices.ContainsFunc(tab.forgiven, func(text string) bool { return strings.Contains(problem, text) })
	if problem != "" && !forgiven {
		tab.problems = append(tab.problems, problem)
	}
}

// check is called when the page has been used for the last time.
func (tab *Tab) check() {
	if tab.closed {
		return
	}
	tab.closed = true
	tab.Do(chromedp.Evaluate("0", nil)) // all that the page said before has been heard then
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, problem := range tab.problems {
		tab.t.Errorf("the page complains: %s", problem)
	}
}

// Forgive says that from now on the page may complain with one of these texts.
func (tab *Tab) Forgive(texts ...string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.forgiven = append(tab.forgiven, texts...)
}

// MayLoseServer forgives the page that it complains of a server that is away, or refuses it.
func (tab *Tab) MayLoseServer() { tab.Forgive("net::ERR_", "WebSocket connection to ") }

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
	_ = chromedp.Run(tab.ctx, page.Close()) // it may be gone before it answers
}

// Click clicks on the element.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.Do(chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible))
}

// Write puts text into the field, in place of what it had, and presses Enter.
func (tab *Tab) Write(selector, text string) {
	tab.t.Helper()
	enter := input.DispatchKeyEvent(input.KeyDown).WithKey("Enter").WithCode("Enter").WithWindowsVirtualKeyCode(13).WithText("\r")
	tab.Fill(selector, text)
	tab.Do(enter)
}

// Fill puts text into the field, in place of what it had.
func (tab *Tab) Fill(selector, text string) {
	tab.t.Helper()
	tab.Do(chromedp.Focus(selector, chromedp.ByQuery, chromedp.NodeVisible),
		chromedp.Evaluate("document.activeElement.select()", nil), input.InsertText(text))
}

// Point moves the mouse.
func (tab *Tab) Point(x, y float64) {
	tab.t.Helper()
	tab.Do(chromedp.MouseEvent(input.MouseMoved, x, y))
}

// Freeze stops the page's scripts, as a page that is too busy would, once one wants to run.
func (tab *Tab) Freeze() {
	tab.t.Helper()
	tab.Do(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := debugger.Enable().Do(ctx)
		return err
	}), debugger.Pause())
	select {
	case <-tab.frozen:
	case <-time.After(patience):
		tab.t.Fatal("no script wants to run")
	}
}

// Thaw lets the page's scripts go on.
func (tab *Tab) Thaw() {
	tab.t.Helper()
	tab.Do(debugger.Resume(), debugger.Disable())
}

// Hide hides the page, as that of a minimized window; Show shows it again.
func (tab *Tab) Hide() { tab.t.Helper(); tab.minimize(true) }

// Show shows the page after Hide.
func (tab *Tab) Show() { tab.t.Helper(); tab.minimize(false) }

func (tab *Tab) minimize(hidden bool) {
	tab.t.Helper()
	state := browser.WindowStateNormal
	if hidden {
		state = browser.WindowStateMinimized
	}
	tab.Do(emulation.SetFocusEmulationEnabled(!hidden), chromedp.ActionFunc(func(ctx context.Context) error {
		window, _, err := browser.GetWindowForTarget().Do(ctx)
		if err != nil {
			return err
		}
		return browser.SetWindowBounds(window, &browser.Bounds{WindowState: state}).Do(ctx)
	}))
	tab.Wait(fmt.Sprintf("document.hidden === %t", hidden))
}

// Back goes back to the page before, which the browser may have kept.
func (tab *Tab) Back() {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	there := make(chan struct{}, 1)
	chromedp.ListenTarget(ctx, func(event any) {
		if _, ok := event.(*page.EventFrameNavigated); ok {
			select {
			case there <- struct{}{}:
			default:
			}
		}
	})
	tab.Do(chromedp.Evaluate("setTimeout(() => history.back()), undefined", nil))
	select {
	case <-there:
	case <-ctx.Done():
		tab.t.Fatal("there is no way back")
	}
}

// Wait waits until the JavaScript expression is truthy. While it throws, it isn't.
func (tab *Tab) Wait(expression string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	look := fmt.Sprintf(`new Promise((found) => {
		const look = () => {
			try {
				if (%s) return found(true);
			} catch {}
			setTimeout(look, 10);
		};
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
	tab.Wait(fmt.Sprintf("document.querySelector(%s).innerText.includes(%s)", Quoted(selector), Quoted(text)))
}

// Quoted is s as JavaScript.
func Quoted(s string) string {
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

// Pictures skips a test that is there for its picture.
func Pictures(t *testing.T) {
	if !*pictures {
		t.Skip("for -pictures")
	}
}

// Picture writes what the tab shows to examples/pictures, with -pictures.
func (tab *Tab) Picture(name string) {
	tab.t.Helper()
	if !*pictures {
		return
	}
	tab.Do(chromedp.ActionFunc(func(ctx context.Context) error {
		p, err := page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatWebp).WithQuality(85).Do(ctx)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join("..", "pictures", name+".webp"), p, 0o644)
	}))
}
