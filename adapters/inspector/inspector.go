// Package inspector shows what goes on in a wsroom hub on a live page: rooms and their members, messages
// in and out, what waits for whom, ends and refusals by cause, the newest events. The page can search, and,
// where the application switches that on, kick a connection, close a room and send a notice.
//
//	in := inspector.New(hub)
//	mux.Handle("/debug/wsroom/", requireAdmin(in))
//
// It shows names and addresses and has no authentication of its own: put the application's in front.
//
// Below the path where it is mounted, of which it looks at the last segment alone, it serves the page with
// its files, live, which is the WebSocket behind the page, and stats.json, which has the same data for
// scripts:
//
//	GET stats.json?search=text&page=1&room=name&membersPage=1
//
// While somebody looks it samples the hub at most once a second, and less often where a sample takes more
// than a twentieth of the time. While nobody does it costs nothing: it has neither a goroutine nor a timer,
// and the hub's traffic doesn't pass through it.
package inspector

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/site"
)

const (
	maxViewers = 100
	// session is how long a page stays connected until it has to pass the application's authentication
	// again, which it tries by itself.
	session = 15 * time.Minute
	viewers = "viewers" // the room of all pages
)

//go:embed assets
var assets embed.FS

// policy allows the page its own files and its own WebSocket, and no markup made from strings.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Option configures an Inspector. A nil Option is skipped.
type Option func(*config)

type config struct {
	actions    bool
	label      func(*wsroom.Conn) string
	hubOptions []wsroom.Option
}

// WithActions lets the page kick connections, close rooms and send notices. Without it they are refused.
// What is done is among the events, with the address of who did it.
func WithActions() Option { return func(c *config) { c.actions = true } }

// WithLabel tells what a connection is called on the page beside its ID, such as its user's name. Labels can be
// searched. f is called for the connections that are shown, or for all while somebody searches; it is called
// concurrently and must return at once. Where it panics the label says so.
func WithLabel(f func(c *wsroom.Conn) string) Option {
	label := func(c *wsroom.Conn) (label string) {
		defer func() {
			if v := recover(); v != nil {
				label = fmt.Sprint("WithLabel panicked: ", v)
			}
		}()
		return f(c)
	}
	return func(c *config) { c.label = label }
}

// WithHubOptions sets up the hub that the page itself connects to, such as by wsroom.WithOrigins behind a
// proxy that changes the Host, wsroom.WithHosts, or wsroom.WithTrustedProxies, with which the events tell who
// acted. Hosts and origins are checked for each path, stats.json too: without WithHosts, a page of any site can read it
// by DNS rebinding where no authentication is in front. Pages of other origins are refused by default, and so are
// more than 100 at a time. Its rooms, authorization and callbacks are the inspector's.
func WithHubOptions(opts ...wsroom.Option) Option {
	return func(c *config) { c.hubOptions = append(c.hubOptions, opts...) }
}

// Inspector is an http.Handler. It is made by New. All methods may be called concurrently.
type Inspector struct {
	actions bool
	sampler sampler
	pages   *wsroom.Hub // of those who look

	mu       sync.Mutex // guards what follows
	watching int        // pages that are connected
	stop     func()     // ends watch, and waits for it; nil while it doesn't run
}

var _ http.Handler = (*Inspector)(nil)

// New returns an Inspector of the hub on this node. It panics without a hub, and with mistakes in
// WithHubOptions.
func New(hub *wsroom.Hub, opts ...Option) *Inspector {
	if hub == nil {
		panic(errors.New("inspector: no hub"))
	}
	cfg := config{label: func(*wsroom.Conn) string { return "" }}
	for _, opt := range opts {
		if opt != nil {
			opt(&cfg)
		}
	}
	in := &Inspector{actions: cfg.actions, sampler: sampler{hub: hub, label: cfg.label}}
	limits := []wsroom.Option{wsroom.WithMaxConns(maxViewers), wsroom.WithMaxMessageSize(16 << 10), wsroom.WithRateLimit(20, 40)}
	in.pages = wsroom.New(slices.Concat(limits, cfg.hubOptions, []wsroom.Option{
		wsroom.WithRoom(func(*http.Request) (string, error) { return viewers, nil }),
		wsroom.WithAuthorize(func(*http.Request, string) error { return wsroom.Until(time.Now().Add(session)) }),
		wsroom.OnConnect(in.enter), wsroom.OnJSON(in.command), wsroom.OnClose(in.leave),
	})...)
	return in
}

// Shutdown disconnects the pages and returns when nothing of the inspector runs any more. Call it beside the
// inspected hub's Shutdown.
func (in *Inspector) Shutdown(ctx context.Context) error {
	if err := in.pages.Shutdown(ctx); err != nil {
		return fmt.Errorf("inspector: %w", err)
	}
	in.sampler.forget()
	return nil
}

// ServeHTTP serves the page, its files, its WebSocket and stats.json, to hosts and origins that WithHubOptions allows.
func (in *Inspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := lastSegment(r)
	if name == "live" {
		in.pages.ServeHTTP(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	status, text := site.Check(in.pages, r)
	switch {
	case status != 0:
		http.Error(w, text, status)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case name == "":
		http.ServeFileFS(w, r, assets, "assets/index.html")
	case name == "style.css", name == "inspector.js", name == "icon.svg":
		http.ServeFileFS(w, r, assets, "assets/"+name)
	case name == "stats.json":
		in.serveJSON(w, r)
	default: // relative, for a prefix may have been stripped
		h.Set("Location", (&url.URL{Path: "./" + name + "/"}).String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// lastSegment is what follows the path's last slash, of the original path where all of it was stripped.
func lastSegment(r *http.Request) string {
	path := r.URL.Path
	if u, err := url.ParseRequestURI(r.RequestURI); path == "" && err == nil {
		path = u.Path
	}
	return path[strings.LastIndexByte(path, '/')+1:]
}

func (in *Inspector) serveJSON(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(in.report(viewOf(r.URL.Query()))) // the client is gone
}

func (in *Inspector) report(v view) *report {
	r := in.sampler.current().report(v, in.sampler.label)
	r.Actions = in.actions
	return r
}

type viewKey struct{}

// enter lets watch run while there is a page.
func (in *Inspector) enter(*wsroom.Conn, *http.Request) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.watching++; in.watching == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			in.watch(ctx)
		}()
		in.stop = func() { cancel(); <-done }
	}
	return nil
}

func (in *Inspector) leave(*wsroom.Conn, error) {
	in.mu.Lock()
	stop := in.stop
	if in.watching--; in.watching > 0 {
		stop = nil
	}
	in.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// watch sends every page its report of each new sample until ctx is done.
func (in *Inspector) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for _, c := range in.pages.Members(viewers) {
			in.show(c)
		}
		timer.Reset(time.Until(in.sampler.current().until))
	}
}

func (in *Inspector) show(c *wsroom.Conn) {
	v, _ := c.Get(viewKey{})
	look, _ := v.(view)             // zero until the page has said what it wants
	_ = c.SendJSON(in.report(look)) // ErrClosed: it has gone
}

// command is what a page wants: to look at something else, or to act.
type command struct {
	Look *view                `json:"look"`
	Do   string               `json:"do"` // kick, close, notice
	Room string               `json:"room"`
	Conn string               `json:"conn"` // an ID
	Text string               `json:"text"` // the notice, or the close frame's reason
	Code websocket.StatusCode `json:"code"` // the close frame's
}

// answer tells a page what became of its action.
type answer struct {
	Done   string `json:"done,omitempty"`
	Failed string `json:"failed,omitempty"`
}

func (in *Inspector) command(c *wsroom.Conn, cmd command, err error) {
	if err != nil {
		return
	}
	if cmd.Look != nil {
		c.Set(viewKey{}, *cmd.Look)
		in.show(c)
		return
	}
	done, err := in.act(cmd)
	if err != nil {
		_ = c.SendJSON(answer{Failed: strings.TrimPrefix(err.Error(), "wsroom: ")})
		return
	}
	in.sampler.note(event{Kind: "action", Room: cmd.Room, Conn: cmd.Conn, Detail: done + ", by " + c.RemoteAddr()})
	_ = c.SendJSON(answer{Done: done})
}

var (
	errReadOnly = errors.New("actions are switched off")
	errNoAction = errors.New("there is no such action")
	errGone     = errors.New("the connection has gone already")
	errNoText   = errors.New("a notice needs a text")
)

// act does what a page asked for and says what that was.
func (in *Inspector) act(cmd command) (done string, err error) {
	if !in.actions {
		return "", errReadOnly
	}
	hub := in.sampler.hub
	switch cmd.Do {
	case "kick":
		c := in.sampler.find(cmd.Conn)
		if c == nil {
			return "", errGone
		}
		if err = c.Close(cmd.Code, cmd.Text); errors.Is(err, wsroom.ErrClosed) {
			err = errGone
		}
		return fmt.Sprintf("kicked with %d", int(cmd.Code)), err
	case "close":
		return fmt.Sprintf("closed the room with %d", int(cmd.Code)), hub.To(cmd.Room).Close(cmd.Code, cmd.Text)
	case "notice":
		if cmd.Text == "" {
			return "", errNoText
		}
		if cmd.Room == "" {
			return "sent a notice to all", hub.SendTextToAll(cmd.Text)
		}
		return "sent a notice", hub.SendTextToRoom(cmd.Room, cmd.Text)
	}
	return "", errNoAction
}
