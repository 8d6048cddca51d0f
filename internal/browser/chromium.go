package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/debugger"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// chromium is driven by the Chrome DevTools Protocol.
type chromium struct {
	ctx context.Context
	end func()
}

func startChromium() (engine, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, err
	}
	ctx, end := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))...)
	// What chromedp doesn't know of a newer Chromium isn't worth a line in the log.
	ctx, endTab := chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	c := &chromium{ctx, func() { endTab(); end() }}
	if err := chromedp.Run(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *chromium) stop() { c.end() }

// executor is for what is asked of the Chromium, not of a page.
func (c *chromium) executor() context.Context {
	return cdp.WithExecutor(c.ctx, chromedp.FromContext(c.ctx).Browser)
}

func (c *chromium) person() (profile, error) {
	id, err := target.CreateBrowserContext().Do(c.executor())
	return &chromiumProfile{c, id, nil}, err
}

type chromiumProfile struct {
	*chromium
	id   cdp.BrowserContextID
	ends []func()
}

func (p *chromiumProfile) leave() error {
	for _, end := range p.ends {
		end()
	}
	return target.DisposeBrowserContext(p.id).Do(p.executor())
}

// chromiumWindow is a tab of a Chromium.
type chromiumWindow struct {
	ctx    context.Context
	frozen chan struct{}
}

// tellForbidden makes a page complain of what its policy forbids.
const tellForbidden = `addEventListener("securitypolicyviolation", (e) => console.error("forbidden:", e.violatedDirective, e.blockedURI))`

func (p *chromiumProfile) open(heard func(string)) (window, error) {
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(p.id).WithNewWindow(true).Do(p.executor())
	if err != nil {
		return nil, err
	}
	ctx, end := chromedp.NewContext(p.ctx, chromedp.WithTargetID(id))
	p.ends = append(p.ends, end)
	w := &chromiumWindow{ctx, make(chan struct{}, 1)}
	chromedp.ListenTarget(ctx, func(event any) { w.hear(event, heard) })
	if err := chromedp.Run(ctx); err != nil { // the tab lives as long as the context of its first Run
		return nil, err
	}
	return w, w.do(ctx, log.Enable(), emulation.SetFocusEmulationEnabled(true), chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(tellForbidden).Do(ctx)
		return err
	}))
}

// hear tells of what a page complains of.
func (w *chromiumWindow) hear(event any, heard func(string)) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning || e.Type == runtime.APITypeAssert {
			args, _ := json.Marshal(e.Args)
			heard(fmt.Sprintf("console: %s", args))
		}
	case *runtime.EventExceptionThrown:
		heard(e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			heard(fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *debugger.EventPaused:
		select {
		case w.frozen <- struct{}{}:
		default:
		}
	case *page.EventJavascriptDialogOpening:
		heard("dialog: " + e.Message)
		go func() { _ = chromedp.Run(w.ctx, page.HandleJavaScriptDialog(true)) }() // it holds up the page
	}
}

// do runs actions within the time that ctx has.
func (w *chromiumWindow) do(ctx context.Context, actions ...chromedp.Action) error {
	within, cancel := context.WithCancel(w.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	return chromedp.Run(within, actions...)
}

func (w *chromiumWindow) navigate(ctx context.Context, url string) error {
	return w.do(ctx, chromedp.Navigate(url))
}

func (w *chromiumWindow) eval(ctx context.Context, expression string) (value json.RawMessage, err error) {
	err = w.do(ctx, chromedp.Evaluate(expression, (*[]byte)(&value), func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true).WithReturnByValue(true)
	}))
	if len(value) == 0 { // undefined
		value = json.RawMessage("null")
	}
	return value, err
}

func (w *chromiumWindow) point(ctx context.Context, x, y float64) error {
	return w.do(ctx, chromedp.MouseEvent(input.MouseMoved, x, y))
}

func (w *chromiumWindow) click(ctx context.Context, x, y float64) error {
	return w.do(ctx, chromedp.MouseClickXY(x, y))
}

func (w *chromiumWindow) insert(ctx context.Context, text string) error {
	return w.do(ctx, input.InsertText(text))
}

func (w *chromiumWindow) enter(ctx context.Context) error {
	return w.do(ctx, input.DispatchKeyEvent(input.KeyDown).WithKey("Enter").WithCode("Enter").WithWindowsVirtualKeyCode(13).WithText("\r"),
		input.DispatchKeyEvent(input.KeyUp).WithKey("Enter").WithCode("Enter").WithWindowsVirtualKeyCode(13))
}

func (w *chromiumWindow) resize(ctx context.Context, width, height int) error {
	phone := width < 600 // it has no mouse
	return w.do(ctx, chromedp.EmulateViewport(int64(width), int64(height)), emulation.SetTouchEmulationEnabled(phone))
}

func (w *chromiumWindow) setDark(ctx context.Context, dark bool) error {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	return w.do(ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

func (w *chromiumWindow) picture(ctx context.Context) (picture []byte, kind string, err error) {
	err = w.do(ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		picture, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatWebp).WithQuality(80).Do(ctx)
		return err
	}))
	return picture, "webp", err
}

func (w *chromiumWindow) close(ctx context.Context) error {
	_ = w.do(ctx, page.Close()) // it may be gone before it answers
	return nil
}

func (w *chromiumWindow) hide(ctx context.Context, hidden bool) error {
	state := browser.WindowStateNormal
	if hidden {
		state = browser.WindowStateMinimized
	}
	return w.do(ctx, emulation.SetFocusEmulationEnabled(!hidden), chromedp.ActionFunc(func(ctx context.Context) error {
		window, _, err := browser.GetWindowForTarget().Do(ctx)
		if err != nil {
			return err
		}
		return browser.SetWindowBounds(window, &browser.Bounds{WindowState: state}).Do(ctx)
	}))
}

func (w *chromiumWindow) setOffline(ctx context.Context, offline bool) error {
	return w.do(ctx, network.Enable(), network.EmulateNetworkConditions(offline, 0, -1, -1))
}

func (w *chromiumWindow) back(ctx context.Context) error {
	listening, cancel := context.WithCancel(w.ctx)
	defer cancel()
	there := make(chan struct{}, 1)
	chromedp.ListenTarget(listening, func(event any) {
		if _, ok := event.(*page.EventFrameNavigated); ok {
			select {
			case there <- struct{}{}:
			default:
			}
		}
	})
	if err := w.do(ctx, chromedp.Evaluate("setTimeout(() => history.back()), undefined", nil)); err != nil {
		return err
	}
	select {
	case <-there:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What only Chromium's protocol has.

// chromium returns the tab's window, which is one of Chromium.
func (tab *Tab) chromium() *chromiumWindow {
	tab.t.Helper()
	w, ok := tab.window.(*chromiumWindow)
	if !ok {
		tab.t.Fatal("only Chromium can do that")
	}
	return w
}

// Do runs actions in a tab of Chromium.
func (tab *Tab) Do(actions ...chromedp.Action) {
	tab.t.Helper()
	w := tab.chromium()
	tab.must("", func(ctx context.Context) error { return w.do(ctx, actions...) })
}

// Freeze stops the page's scripts, as a page that is too busy would, once one wants to run. Only Chromium does it.
func (tab *Tab) Freeze() {
	tab.t.Helper()
	tab.Do(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := debugger.Enable().Do(ctx)
		return err
	}), debugger.Pause())
	select {
	case <-tab.chromium().frozen:
	case <-time.After(patience):
		tab.t.Fatal("no script wants to run")
	}
}

// Thaw lets the page's scripts go on.
func (tab *Tab) Thaw() {
	tab.t.Helper()
	tab.Do(debugger.Resume(), debugger.Disable())
}
