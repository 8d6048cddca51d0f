package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// webkit is WebKitGTK's MiniBrowser on a screen in memory, driven by WebDriver.
type webkit struct {
	dir     string
	display string
	browser string
	end     func()
}

func startWebKit() (engine, error) {
	found, err := filepath.Glob("/usr/lib/*/webkit2gtk-4.*/MiniBrowser")
	if err != nil || len(found) == 0 {
		return nil, errors.New("there is no MiniBrowser: apt-get install webkit2gtk-driver")
	}
	dir, err := os.MkdirTemp("", "webkit")
	if err != nil {
		return nil, err
	}
	number, told, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer number.Close()
	screen := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1600x1200x24", "-nolisten", "tcp")
	screen.ExtraFiles = []*os.File{told}
	err = screen.Start()
	told.Close()
	if err != nil {
		return nil, err
	}
	w := &webkit{dir: dir, browser: found[len(found)-1], end: func() {
		_ = screen.Process.Signal(os.Interrupt) // it takes its lock and its socket along
		_ = screen.Wait()
		_ = os.RemoveAll(dir)
	}}
	line, err := bufio.NewReader(number).ReadString('\n')
	if err != nil {
		w.end()
		return nil, fmt.Errorf("the screen: %w", err)
	}
	w.display = ":" + strings.TrimSpace(line)
	return w, nil
}

func (w *webkit) stop() { w.end() }

// webkitProfile is a browser of its own: a driver has one session.
type webkitProfile struct {
	url    string // of the driver, then of the session
	driver *exec.Cmd

	mu    sync.Mutex // guards what follows: a session has one current window, and does one thing at a time
	now   string     // the current window
	empty string     // the first window, which nobody uses yet
}

func (w *webkit) person() (profile, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	driver := exec.Command("WebKitWebDriver", "--port="+port)
	theme := "Adwaita"
	if *dark {
		theme += ":dark"
	}
	driver.Env = append(os.Environ(), "DISPLAY="+w.display, "GDK_BACKEND=x11", "HOME="+w.dir, "XDG_RUNTIME_DIR="+w.dir,
		"NO_AT_BRIDGE=1", "LIBGL_ALWAYS_SOFTWARE=1", "GTK_THEME="+theme)
	if err := driver.Start(); err != nil {
		return nil, err
	}
	p := &webkitProfile{url: "http://" + addr, driver: driver}
	if err := p.begin(w.browser); err != nil {
		_ = p.leave()
		return nil, err
	}
	return p, nil
}

// begin begins a session, once the driver listens.
func (p *webkitProfile) begin(program string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for p.call(ctx, "GET", "/status", nil, nil) != nil {
		select {
		case <-ctx.Done():
			return errors.New("WebKitWebDriver doesn't listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
	options := params{"binary": program, "args": []string{"--automation"}}
	var made struct{ SessionID string }
	if err := p.call(ctx, "POST", "/session", params{"capabilities": params{"alwaysMatch": params{"webkitgtk:browserOptions": options}}}, &made); err != nil {
		return err
	}
	p.url += "/session/" + made.SessionID
	if err := p.call(ctx, "POST", "/timeouts", params{"script": patience.Milliseconds()}, nil); err != nil {
		return err
	}
	err := p.call(ctx, "GET", "/window", nil, &p.now)
	p.empty = p.now
	return err
}

func (p *webkitProfile) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := p.call(ctx, "DELETE", "", nil, nil)
	_ = p.driver.Process.Kill()
	_ = p.driver.Wait() // it was killed
	return err
}

// call calls a command of WebDriver.
func (p *webkitProfile) call(ctx context.Context, method, path string, body, result any) error {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, answer.Value)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, result)
}

// webkitWindow is a window of a MiniBrowser.
type webkitWindow struct {
	p     *webkitProfile
	id    string
	heard func(problem string)
}

func (p *webkitProfile) open(heard func(string)) (window, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &webkitWindow{p, p.empty, heard}
	p.empty = ""
	if w.id != "" {
		return w, nil
	}
	var made struct{ Handle string }
	err := p.call(ctx, "POST", "/window/new", params{"type": "window"}, &made)
	w.id = made.Handle
	return w, err
}

// call calls a command for this window.
func (w *webkitWindow) call(ctx context.Context, path string, body params, result any) error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.now != w.id {
		if err := w.p.call(ctx, "POST", "/window", params{"handle": w.id}, nil); err != nil {
			return err
		}
		w.p.now = w.id
	}
	method := "POST"
	if body == nil {
		method = "GET"
	}
	return w.p.call(ctx, method, path, body, result)
}

// listen makes a page remember what it complains of. WebDriver tells nothing of that, so what comes before isn't heard.
const listen = `
if (!window.complaints) {
	window.complaints = [];
	const complain = (...words) => complaints.push(words.map(String).join(" "));
	addEventListener("error", (e) => complain("error:", e.message));
	addEventListener("unhandledrejection", (e) => complain("rejected:", e.reason));
	addEventListener("securitypolicyviolation", (e) => complain("forbidden:", e.violatedDirective, e.blockedURI));
	console.error = console.warn = complain;
}`

func (w *webkitWindow) navigate(ctx context.Context, url string) error {
	if err := w.call(ctx, "/url", params{"url": url}, nil); err != nil {
		return err
	}
	return w.call(ctx, "/execute/sync", params{"script": listen, "args": []any{}}, nil)
}

func (w *webkitWindow) eval(ctx context.Context, expression string) (json.RawMessage, error) {
	const script = `
	const tell = arguments[arguments.length - 1];
	const answer = (given) => tell(JSON.stringify({ ...given, complaints: window.complaints?.splice(0) }));
	try {
		Promise.resolve(%s).then((value) => answer({ value: value ?? null }), (e) => answer({ failed: String(e) }));
	} catch (e) {
		answer({ failed: String(e) });
	}`
	var text string
	if err := w.call(ctx, "/execute/async", params{"script": fmt.Sprintf(script, expression), "args": []any{}}, &text); err != nil {
		return nil, err
	}
	var answer struct {
		Value      json.RawMessage
		Failed     string
		Complaints []string
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	for _, problem := range answer.Complaints {
		w.heard(problem)
	}
	if answer.Failed != "" {
		return nil, errors.New(answer.Failed)
	}
	return answer.Value, nil
}

// act does what a mouse or the keys do.
func (w *webkitWindow) act(ctx context.Context, kind string, actions ...params) error {
	return w.call(ctx, "/actions", params{"actions": []params{{"type": kind, "id": kind, "actions": actions}}}, nil)
}

func (w *webkitWindow) point(ctx context.Context, x, y float64) error {
	return w.act(ctx, "pointer", moveTo(x, y))
}

func (w *webkitWindow) click(ctx context.Context, x, y float64) error {
	return w.act(ctx, "pointer", pressAt(x, y)...)
}

func (w *webkitWindow) insert(ctx context.Context, text string) error {
	_, err := w.eval(ctx, inserting(text))
	return err
}

func (w *webkitWindow) enter(ctx context.Context) error {
	return w.act(ctx, "key", enterKey...)
}

// bars is how much higher a window is than its page. A window is at least 447 pixels wide.
const bars = 38

func (w *webkitWindow) resize(ctx context.Context, width, height int) error {
	if err := w.call(ctx, "/window/rect", params{"width": width, "height": height + bars}, nil); err != nil {
		return err
	}
	const settled = `new Promise((tell) => {
		let last = "", same = 0;
		const look = () => {
			const now = innerWidth + "x" + innerHeight;
			same = now === last ? same + 1 : 0;
			last = now;
			same > 5 ? tell(true) : setTimeout(look, 20);
		};
		look();
	})`
	_, err := w.eval(ctx, settled)
	return err
}

func (w *webkitWindow) setDark(context.Context, bool) error { return errors.ErrUnsupported }

func (w *webkitWindow) picture(ctx context.Context) (picture []byte, kind string, err error) {
	var data string
	if err := w.call(ctx, "/screenshot", nil, &data); err != nil {
		return nil, "", err
	}
	picture, err = base64.StdEncoding.DecodeString(data)
	return picture, "png", err
}

func (w *webkitWindow) back(ctx context.Context) error {
	return w.call(ctx, "/back", params{}, nil)
}

// hide minimizes the window: without a window manager nobody else would.
func (w *webkitWindow) hide(ctx context.Context, hidden bool) error {
	if hidden {
		return w.call(ctx, "/window/minimize", params{}, nil)
	}
	return w.call(ctx, "/window/rect", params{"x": 0, "y": 0}, nil)
}

func (w *webkitWindow) setOffline(context.Context, bool) error { return errors.ErrUnsupported }

func (w *webkitWindow) close(ctx context.Context) error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if err := w.p.call(ctx, "POST", "/window", params{"handle": w.id}, nil); err != nil {
		return err
	}
	w.p.now = "" // none: the next command chooses one
	return w.p.call(ctx, "DELETE", "/window", nil, nil)
}
