// Package browser opens pages in Chromium, Firefox and WebKit, as their users would, for tests, and fails the test
// when a page complains: by an error or a warning, a dialog, or something that its policy forbids.
package browser

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// only chooses engines: for a quick look at one of them, or where the others have been tried already.
var only = flag.String("engine", os.Getenv("WSROOM_ENGINE"), "the only engine to run: chromium, firefox or webkit")

// dark is for pictures of Firefox and WebKit, which can't change it while they run.
var dark = flag.Bool("dark", false, "start Firefox and WebKit with a dark look")

// Names of the engines.
const (
	Chromium = "chromium"
	Firefox  = "firefox"
	WebKit   = "webkit"
)

// engine is a browser that runs, behind the protocol that drives it.
type engine interface {
	person() (profile, error)
	stop()
}

// profile has cookies and a storage of its own.
type profile interface {
	// open opens an empty window. It tells heard of what its pages complain of.
	open(heard func(problem string)) (window, error)
	leave() error
}

// window is a page. Places are CSS pixels from its upper left corner.
type window interface {
	navigate(ctx context.Context, url string) error
	// eval returns the value of a JavaScript expression as JSON, once it has one.
	eval(ctx context.Context, expression string) (json.RawMessage, error)
	point(ctx context.Context, x, y float64) error
	click(ctx context.Context, x, y float64) error
	// insert types text where the focus is, enter the key.
	insert(ctx context.Context, text string) error
	enter(ctx context.Context) error
	resize(ctx context.Context, width, height int) error
	setDark(ctx context.Context, dark bool) error // errors.ErrUnsupported where only the flag does it
	picture(ctx context.Context) (picture []byte, kind string, err error)
	back(ctx context.Context) error
	hide(ctx context.Context, hidden bool) error
	setOffline(ctx context.Context, offline bool) error // errors.ErrUnsupported where nothing does it
	close(ctx context.Context) error
}

// kinds are the engines, with the programs that they need.
var kinds = []struct {
	name     string
	programs []string
	install  string
	start    func() (engine, error)
}{
	{Chromium, []string{"chromium"}, "chromium", startChromium},
	{Firefox, []string{"firefox-esr"}, "firefox-esr", startFirefox},
	{WebKit, []string{"WebKitWebDriver", "Xvfb"}, "webkit2gtk-driver xvfb", startWebKit},
}

// Browser is an engine that runs.
type Browser struct {
	Name   string
	engine engine
}

// Start starts a Chromium, which ends with the test. Where none is installed it skips the test; with
// WSROOM_INTEROP=all it fails.
func Start(t *testing.T) *Browser {
	t.Helper()
	return start(t, Chromium)
}

// Each runs f in a subtest for each engine. The subtests of what isn't installed are skipped; with
// WSROOM_INTEROP=all they fail.
func Each(t *testing.T, f func(t *testing.T, b *Browser)) {
	t.Helper()
	for _, kind := range kinds {
		if *only != "" && *only != kind.name {
			continue
		}
		t.Run(kind.name, func(t *testing.T) { f(t, start(t, kind.name)) })
	}
}

func start(t *testing.T, name string) *Browser {
	t.Helper()
	for _, kind := range kinds {
		if kind.name != name {
			continue
		}
		for _, program := range kind.programs {
			if _, err := exec.LookPath(program); err == nil {
				continue
			}
			how := program + " is missing: apt-get install " + kind.install
			if os.Getenv("WSROOM_INTEROP") == "all" {
				t.Fatal(how)
			}
			t.Skip(how)
		}
		e, err := kind.start()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(e.stop)
		return &Browser{name, e}
	}
	panic("no engine has the name " + name)
}

// Parallel is t.Parallel, but for WebKit, where each person is a browser.
func (b *Browser) Parallel(t *testing.T) {
	if b.Name != WebKit {
		t.Parallel()
	}
}

// Person is somebody at the browser, with cookies and a storage of their own.
type Person struct {
	t       *testing.T
	browser *Browser
	profile profile
}

// Person returns somebody new, who leaves when t ends.
func (b *Browser) Person(t *testing.T) *Person {
	t.Helper()
	p, err := b.engine.person()
	if err != nil {
		t.Fatalf("%s: %v", b.Name, err)
	}
	t.Cleanup(func() {
		if err := p.leave(); err != nil {
			t.Error(err)
		}
	})
	return &Person{t, b, p}
}
