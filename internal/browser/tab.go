package browser

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

var pictures = flag.String("pictures", "", "a directory for pictures of the pages")

// Tab is a page that is open.
type Tab struct {
	t       *testing.T
	browser *Browser
	window  window
	closed  bool

	mu       sync.Mutex // guards what follows
	problems []string
	forgiven []string
}

// Open opens url in a window of 1200 × 760 pixels. The page must have nothing to complain of until the
// test ends, but with one of the forgiven texts.
func (p *Person) Open(url string, forgiven ...string) *Tab {
	p.t.Helper()
	tab := &Tab{t: p.t, browser: p.browser, forgiven: forgiven}
	var err error
	if tab.window, err = p.profile.open(tab.hear); err != nil {
		p.t.Fatalf("%s: %v", p.browser.Name, err)
	}
	p.t.Cleanup(tab.check)
	tab.Resize(1200, 760)
	tab.Go(url)
	return tab
}

// must runs a command that must succeed in time.
func (tab *Tab) must(what string, command func(ctx context.Context) error) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := command(ctx); err != nil {
		tab.t.Fatalf("%s: %s %v", tab.browser.Name, what, err)
	}
}

// Go goes to another page.
func (tab *Tab) Go(url string) {
	tab.t.Helper()
	tab.must(url, func(ctx context.Context) error { return tab.window.navigate(ctx, url) })
}

// Resize gives the page another size. One that is narrower than 600 pixels is a phone.
func (tab *Tab) Resize(width, height int) {
	tab.t.Helper()
	tab.must("resize", func(ctx context.Context) error { return tab.window.resize(ctx, width, height) })
}

// Dark gives the page a dark look, or a light one. Only Chromium does it.
func (tab *Tab) Dark(dark bool) {
	tab.t.Helper()
	tab.must("dark", func(ctx context.Context) error { return tab.window.setDark(ctx, dark) })
}

// Hide hides the page, as that of a minimized window or of a tab behind another.
func (tab *Tab) Hide() { tab.t.Helper(); tab.hide(true) }

// Show shows the page after Hide.
func (tab *Tab) Show() { tab.t.Helper(); tab.hide(false) }

func (tab *Tab) hide(hidden bool) {
	tab.t.Helper()
	tab.must("hide", func(ctx context.Context) error { return tab.window.hide(ctx, hidden) })
	tab.Wait(fmt.Sprintf("document.hidden === %t", hidden))
}

// Offline takes the network from the page, or gives it back, and reports whether the engine does that.
func (tab *Tab) Offline(offline bool) (done bool) {
	tab.t.Helper()
	tab.must("offline", func(ctx context.Context) error {
		err := tab.window.setOffline(ctx, offline)
		if done = err == nil; errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	})
	return done
}

// Back goes back to the page before, which the browser may have kept.
func (tab *Tab) Back() {
	tab.t.Helper()
	tab.must("back", tab.window.back)
}

// hear notes what a page complains of.
func (tab *Tab) hear(problem string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if !slices.ContainsFunc(tab.forgiven, func(text string) bool { return strings.Contains(problem, text) }) {
		tab.problems = append(tab.problems, problem)
	}
}

// check is called when the page has been used for the last time.
func (tab *Tab) check() {
	if tab.closed {
		return
	}
	tab.closed = true
	Eval[int](tab, "0") // all that the page said before has been heard then
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
func (tab *Tab) MayLoseServer() {
	tab.Forgive("net::ERR_", "WebSocket connection to ", "can’t establish a connection to the server", "was interrupted while the page was loading")
}

// Close closes the tab as its user would.
func (tab *Tab) Close() {
	tab.t.Helper()
	tab.check()
	tab.must("close", tab.window.close)
}

// Click clicks on the element, once it is shown.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.Wait(fmt.Sprintf(`document.querySelector(%s).checkVisibility({ visibilityProperty: true })`, Quoted(selector)))
	at := Eval[[2]float64](tab, fmt.Sprintf(`((e) => {
		e.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
		const { x, y, width, height } = e.getBoundingClientRect();
		return [x + width / 2, y + height / 2];
	})(document.querySelector(%s))`, Quoted(selector)))
	tab.must("click", func(ctx context.Context) error { return tab.window.click(ctx, at[0], at[1]) })
}

// Write puts text into the field, in place of what it had, and presses Enter.
func (tab *Tab) Write(selector, text string) {
	tab.t.Helper()
	tab.Fill(selector, text)
	tab.must("enter", tab.window.enter)
}

// Fill puts text into the field, in place of what it had.
func (tab *Tab) Fill(selector, text string) {
	tab.t.Helper()
	tab.Wait(fmt.Sprintf(`((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && (e.focus(), e.select(), document.activeElement === e))(document.querySelector(%s))`, Quoted(selector)))
	tab.must("insert", func(ctx context.Context) error { return tab.window.insert(ctx, text) })
}

// Point moves the mouse.
func (tab *Tab) Point(x, y float64) {
	tab.t.Helper()
	tab.must("point", func(ctx context.Context) error { return tab.window.point(ctx, x, y) })
}

// Wait waits until the JavaScript expression is truthy. While it throws, it isn't.
func (tab *Tab) Wait(expression string) {
	tab.t.Helper()
	// The page looks, so that nothing short is missed; it is asked again if it goes away meanwhile.
	look := fmt.Sprintf(`((holds) => new Promise((tell) => {
		const until = Date.now() + 2000;
		const look = () => {
			try {
				if (holds()) return tell(true);
			} catch {}
			if (Date.now() > until) return tell(false);
			setTimeout(look, 10);
		};
		look();
	}))(() => (%s))`, expression)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		value, err := tab.window.eval(ctx, look)
		if string(value) == "true" && err == nil {
			return
		}
		last = err
		if err != nil {
			time.Sleep(20 * time.Millisecond) // while the next page opens
		}
	}
	tab.t.Fatalf("waited in vain for %s: %v; the page says:\n%s", expression, last, tab.text())
}

// text is what the page says, if it still says anything.
func (tab *Tab) text() (text string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	value, _ := tab.window.eval(ctx, "document.body.innerText")
	_ = json.Unmarshal(value, &text)
	return text
}

// WaitText waits until the element shows the text.
func (tab *Tab) WaitText(selector, text string) {
	tab.t.Helper()
	if tab.browser.Name == Firefox { // it leaves out of innerText what turns the text around it
		text = strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Bidi_Control, r) {
				return -1
			}
			return r
		}, text)
	}
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
	tab.must(expression, func(ctx context.Context) error {
		text, err := tab.window.eval(ctx, expression)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &value)
	})
	return value
}

// Pictures skips a test that is there for its pictures.
func Pictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("for -pictures")
	}
}

// Picture writes what the tab shows to the directory of -pictures: wide and on a phone, light and dark. Those of Chromium
// are for examples/README.md; the others have the engine in their name, and the look that it was started with.
func (tab *Tab) Picture(name string) {
	tab.t.Helper()
	if *pictures == "" {
		return
	}
	for kind, size := range map[string][2]int{"phone": {390, 844}, "desk": {1200, 760}} {
		tab.Resize(size[0], size[1])
		for _, look := range []string{"light", "dark"} {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			err := tab.window.setDark(ctx, look == "dark")
			cancel()
			file := name + "-" + kind + "-" + look
			if errors.Is(err, errors.ErrUnsupported) {
				if *dark != (look == "dark") {
					continue
				}
				file += "-" + tab.browser.Name
			}
			tab.save(file)
		}
	}
	tab.Resize(1200, 760)
}

func (tab *Tab) save(file string) {
	tab.t.Helper()
	Eval[bool](tab, `new Promise((drawn) => setTimeout(() => drawn(true), 400))`) // what moves has come to rest
	tab.must(file, func(ctx context.Context) error {
		picture, kind, err := tab.window.picture(ctx)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(*pictures, file+"."+kind), picture, 0o644)
	})
}
