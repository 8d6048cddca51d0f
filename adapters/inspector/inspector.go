// Package inspector shows the state of a wsroom hub on a live page: rooms and their members, messages
// received and sent, messages waiting for each connection, ends and refusals by cause, and the newest
// events. The page can search. If the application allows it, the page can also kick a connection, close a
// room and send a notice.
//
//	in := inspector.New(hub)
//	mux.Handle("/debug/wsroom/", requireAdmin(in))
//
// It shows names and addresses and has no authentication of its own: put the application's authentication
// in front of it.
//
// It looks only at the last segment of the path below its mount. It serves the page with its files; live,
// which is the page's WebSocket; and stats.json, which has the same data for scripts:
//
//	GET stats.json?search=text&page=1&room=name&membersPage=1
//
// While a page is open it samples the hub at most once a second, and less often if a sample takes more than
// a twentieth of the time. While no page is open it costs nothing: it has no goroutine and no timer, and
// the hub's traffic doesn't pass through it.
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
	// session is how long a page stays connected before it must pass the application's authentication
	// again. The page reconnects by itself.
	session = 15 * time.Minute
	viewers = "viewers" // the room of all pages
)

//go:embed assets
var assets embed.FS

// policy allows the page its own files and its own WebSocket, and no markup made from strings.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Option configures an [Inspector]. A nil Option is skipped.
type Option func(*config)

type config struct {
	actions    bool
	label      func(*wsroom.Conn) string
	hubOptions []wsroom.Option
}

// WithActions lets the page kick connections, close rooms and send notices. Without it these actions are
// refused. Each action is listed among the events, with the address of the page that asked for it.
func WithActions() Option { return func(c *config) { c.actions = true } }

// WithLabel sets the function that returns the label of a connection, such as its user's name. The page
// shows the label beside the connection's ID, and labels can be searched. f is called for the connections
// that are shown, or for all connections during a search. It is called concurrently and must return at
// once. If f panics, the label says so.
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

// WithHubOptions sets options of the hub that the page itself connects to. Examples are
// [wsroom.WithOrigins] behind a proxy that changes the Host, [wsroom.WithHosts], and
// [wsroom.WithTrustedProxies], with which the events name the address that asked for an action. Hosts and
// origins are checked for each path, including stats.json. Without WithHosts, a page of any site can read
// stats.json by DNS rebinding if no authentication is in front. By default pages of other origins are
// refused, and so are more than 100 pages at a time. The hub's rooms, authorization and callbacks belong to
// the inspector.
func WithHubOptions(opts ...wsroom.Option) Option {
	return func(c *config) { c.hubOptions = append(c.hubOptions, opts...) }
}

// Inspector is an http.Handler. [New] makes it. All methods may be called concurrently.
type Inspector struct {
	actions bool
	sampler sampler
	pages   *wsroom.Hub // the hub of the pages

	mu       sync.Mutex // guards what follows
	watching int        // pages that are connected
	stop     func()     // ends watch and waits for it; nil while watch isn't running
}

var _ http.Handler = (*Inspector)(nil)

// New returns an [Inspector] of the hub on this node. It panics if hub is nil, or if [WithHubOptions] got
// invalid options.
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

// Shutdown disconnects the pages and returns when nothing of the inspector is running any more. Call it in
// addition to the inspected hub's Shutdown.
func (in *Inspector) Shutdown(ctx context.Context) error {
	if err := in.pages.Shutdown(ctx); err != nil {
		return fmt.Errorf("inspector: %w", err)
	}
	in.sampler.forget()
	return nil
}

// ServeHTTP serves the page, its files, its WebSocket and stats.json to the hosts and origins that
// [WithHubOptions] allows.
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
	default: // relative, because a prefix may have been stripped
		h.Set("Location", (&url.URL{Path: "./" + name + "/"}).String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// lastSegment returns what follows the path's last slash. If the whole path was stripped, it uses the
// original path.
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
	_ = encoder.Encode(in.report(viewOf(r.URL.Query()))) // on an error the client is gone
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

// watch sends every page its report of each new sample, until ctx is done.
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
	look, _ := v.(view)             // zero until the page has said what it wants to see
	_ = c.SendJSON(in.report(look)) // ErrClosed: the page has gone
}

// command is what a page asks for: to see something else, or an action.
type command struct {
	Look *view                `json:"look"`
	Do   string               `json:"do"` // kick, close, notice
	Room string               `json:"room"`
	Conn string               `json:"conn"` // a connection's ID
	Text string               `json:"text"` // the notice, or the close frame's reason
	Code websocket.StatusCode `json:"code"` // the close frame's code
}

// answer tells a page the outcome of its action.
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

// act does what a page asked for and returns a description of it.
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
