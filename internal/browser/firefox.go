package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// firefox is driven by WebDriver BiDi.
type firefox struct {
	ctx    context.Context // until the program ends
	ws     *websocket.Conn
	ending []func()

	mu      sync.Mutex // guards what follows
	id      int
	answers map[int]chan bidiMessage
	heard   map[string]func(problem string) // by window
}

// bidiMessage is an answer, by ID, or an event.
type bidiMessage struct {
	ID      int
	Error   string
	Message string
	Result  json.RawMessage
	Method  string
	Params  struct {
		Type, Level, Text, Message string
		Context                    string
		Source                     struct{ Context string }
	}
}

// preferences are those of a profile in which Firefox is as its users know it, and calls nobody.
const preferences = `
user_pref("layout.css.prefers-color-scheme.content-override", %d);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.server", "");
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
`

func startFirefox() (engine, error) {
	f := &firefox{answers: map[int]chan bidiMessage{}, heard: map[string]func(string){}}
	if err := f.run(); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

func (f *firefox) run() error {
	dir, err := os.MkdirTemp("", "firefox")
	if err != nil {
		return err
	}
	f.ending = append(f.ending, func() { _ = os.RemoveAll(dir) }) // a temporary folder
	scheme := 1
	if *dark {
		scheme = 0
	}
	if err := os.WriteFile(filepath.Join(dir, "user.js"), fmt.Appendf(nil, preferences, scheme), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.ctx = ctx
	program := exec.CommandContext(ctx, "firefox-esr", "--headless", "--no-remote", "--profile", dir, "--remote-debugging-port", "0")
	program.Env = append(os.Environ(), "HOME="+dir)
	stderr, err := program.StderrPipe()
	if err != nil {
		cancel()
		return err
	}
	if err := program.Start(); err != nil {
		cancel()
		return err
	}
	url, read := make(chan string, 1), make(chan struct{})
	f.ending = append(f.ending, func() {
		cancel()
		<-read
		_ = program.Wait() // it was killed
	})
	go func() {
		defer close(read)
		defer close(url)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, found, ok := strings.Cut(lines.Text(), "WebDriver BiDi listening on "); ok {
				url <- found
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
	}()
	return f.connect(<-url)
}

func (f *firefox) connect(url string) error {
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url+"/session", nil)
	if err != nil {
		return err
	}
	f.ws = ws
	ws.SetReadLimit(16 << 20) // pictures
	over := make(chan struct{})
	go func() { defer close(over); f.read() }()
	f.ending = append(f.ending, func() { ws.CloseNow(); <-over })
	if err := f.call(ctx, "session.new", params{"capabilities": params{}}, nil); err != nil {
		return err
	}
	if err := f.call(ctx, "session.subscribe", params{"events": []string{"log.entryAdded", "browsingContext.userPromptOpened"}}, nil); err != nil {
		return err
	}
	return f.call(ctx, "script.addPreloadScript", params{"functionDeclaration": "() => { " + tellForbidden + " }"}, nil)
}

func (f *firefox) stop() {
	for len(f.ending) > 0 {
		last := len(f.ending) - 1
		f.ending[last]()
		f.ending = f.ending[:last]
	}
}

// read reads answers and events until Firefox ends.
func (f *firefox) read() {
	for {
		var m bidiMessage
		if err := wsjson.Read(f.ctx, f.ws, &m); err != nil {
			return
		}
		f.mu.Lock()
		answer := f.answers[m.ID]
		delete(f.answers, m.ID)
		heard := f.heard[m.Params.Source.Context+m.Params.Context]
		f.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case heard == nil:
		case m.Method == "browsingContext.userPromptOpened":
			heard("dialog: " + m.Params.Message)
		case m.Params.Level == "error" || m.Params.Level == "warn" && m.Params.Type == "console":
			heard(m.Params.Type + ": " + m.Params.Text)
		}
	}
}

type params = map[string]any

// call calls a command of WebDriver BiDi.
func (f *firefox) call(ctx context.Context, method string, p params, result any) error {
	answer := make(chan bidiMessage, 1)
	f.mu.Lock()
	f.id++
	id := f.id
	f.answers[id] = answer
	f.mu.Unlock()
	if err := wsjson.Write(f.ctx, f.ws, params{"id": id, "method": method, "params": p}); err != nil {
		return err
	}
	select {
	case m := <-answer:
		if m.Error != "" {
			return fmt.Errorf("%s: %s: %s", method, m.Error, m.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	case <-f.ctx.Done():
		return fmt.Errorf("%s: firefox has ended", method)
	}
}

type firefoxProfile struct {
	*firefox
	id string
}

func (f *firefox) person() (profile, error) {
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	var made struct{ UserContext string }
	err := f.call(ctx, "browser.createUserContext", params{}, &made)
	return &firefoxProfile{f, made.UserContext}, err
}

func (p *firefoxProfile) leave() error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return p.call(ctx, "browser.removeUserContext", params{"userContext": p.id}, nil)
}

// firefoxWindow is a window of a Firefox.
type firefoxWindow struct {
	*firefox
	id string
}

func (p *firefoxProfile) open(heard func(string)) (window, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	var made struct{ Context string }
	if err := p.call(ctx, "browsingContext.create", params{"type": "window", "userContext": p.id}, &made); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.heard[made.Context] = heard
	p.mu.Unlock()
	return &firefoxWindow{p.firefox, made.Context}, nil
}

func (w *firefoxWindow) navigate(ctx context.Context, url string) error {
	return w.call(ctx, "browsingContext.navigate", params{"context": w.id, "url": url, "wait": "complete"}, nil)
}

func (w *firefoxWindow) eval(ctx context.Context, expression string) (json.RawMessage, error) {
	var got struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := w.call(ctx, "script.evaluate", params{
		"expression":   fmt.Sprintf("Promise.resolve(%s).then((value) => JSON.stringify(value ?? null))", expression),
		"target":       params{"context": w.id},
		"awaitPromise": true,
	}, &got)
	if err == nil && got.Type != "success" {
		err = errors.New(got.ExceptionDetails.Text)
	}
	return json.RawMessage(got.Result.Value), err
}

// act does what a mouse or the keys do.
func (w *firefoxWindow) act(ctx context.Context, kind string, actions ...params) error {
	return w.call(ctx, "input.performActions", params{
		"context": w.id,
		"actions": []params{{"type": kind, "id": kind, "actions": actions}},
	}, nil)
}

func (w *firefoxWindow) point(ctx context.Context, x, y float64) error {
	return w.act(ctx, "pointer", moveTo(x, y))
}

func (w *firefoxWindow) click(ctx context.Context, x, y float64) error {
	return w.act(ctx, "pointer", pressAt(x, y)...)
}

func (w *firefoxWindow) insert(ctx context.Context, text string) error {
	_, err := w.eval(ctx, inserting(text))
	return err
}

func (w *firefoxWindow) enter(ctx context.Context) error {
	return w.act(ctx, "key", enterKey...)
}

func (w *firefoxWindow) resize(ctx context.Context, width, height int) error {
	return w.call(ctx, "browsingContext.setViewport", params{"context": w.id, "viewport": params{"width": width, "height": height}}, nil)
}

func (w *firefoxWindow) setDark(context.Context, bool) error { return errors.ErrUnsupported }

func (w *firefoxWindow) picture(ctx context.Context) (picture []byte, kind string, err error) {
	var got struct{ Data string }
	if err := w.call(ctx, "browsingContext.captureScreenshot", params{"context": w.id}, &got); err != nil {
		return nil, "", err
	}
	picture, err = base64.StdEncoding.DecodeString(got.Data)
	return picture, "png", err
}

func (w *firefoxWindow) back(ctx context.Context) error {
	return w.call(ctx, "browsingContext.traverseHistory", params{"context": w.id, "delta": -1}, nil)
}

func (w *firefoxWindow) hide(ctx context.Context, hidden bool) error {
	if !hidden {
		return w.call(ctx, "browsingContext.activate", params{"context": w.id}, nil)
	}
	var made struct{ Context string }
	tab := params{"type": "tab", "referenceContext": w.id}
	if err := w.call(ctx, "browsingContext.create", tab, &made); err != nil {
		return err
	}
	return w.call(ctx, "browsingContext.activate", params{"context": made.Context}, nil)
}

func (w *firefoxWindow) setOffline(ctx context.Context, offline bool) error {
	conditions := params{"networkConditions": nil, "contexts": []string{w.id}}
	if offline {
		conditions["networkConditions"] = params{"type": "offline"}
	}
	return w.call(ctx, "emulation.setNetworkConditions", conditions, nil)
}

func (w *firefoxWindow) close(ctx context.Context) error {
	return w.call(ctx, "browsingContext.close", params{"context": w.id}, nil)
}

// Actions are the same in WebDriver and WebDriver BiDi.

var enterKey = []params{{"type": "keyDown", "value": "\ue007"}, {"type": "keyUp", "value": "\ue007"}}

func moveTo(x, y float64) params {
	return params{"type": "pointerMove", "x": int(x), "y": int(y), "duration": 0}
}

func pressAt(x, y float64) []params {
	return []params{moveTo(x, y), {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}}
}

// inserting types text into what has the focus, at once: key by key it takes a browser seconds.
func inserting(text string) string {
	command := "insertText"
	if text == "" {
		command = "delete" // what is selected
	}
	return fmt.Sprintf("document.execCommand(%s, false, %s)", Quoted(command), Quoted(text))
}
