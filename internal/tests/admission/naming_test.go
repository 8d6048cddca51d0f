package admission_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// mounting is a way to put a handler behind a router.
type mounting struct {
	name  string
	mount func(h http.Handler) http.Handler
}

func chiOf(build func(r chi.Router)) http.Handler {
	r := chi.NewRouter()
	build(r)
	return r
}

func passOn(next http.Handler) http.Handler { return next }

// mountings lead /chat/{room} to a hub that sees the whole path.
var mountings = []mounting{
	{"ServeMux", func(h http.Handler) http.Handler { return kit.MuxOf("/chat/{room}", h) }},
	{"ServeMux with method", func(h http.Handler) http.Handler { return kit.MuxOf("GET /chat/{room}", h) }},
	{"ServeMux with host", func(h http.Handler) http.Handler { return kit.MuxOf("127.0.0.1/chat/{room}", h) }},
	{"ServeMux with both", func(h http.Handler) http.Handler { return kit.MuxOf("GET 127.0.0.1/chat/{room}", h) }},
	{"ServeMux in ServeMux", func(h http.Handler) http.Handler { return kit.MuxOf("/", kit.MuxOf("/chat/{room}", h)) }},
	{"ServeMux in chi", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Mount("/", kit.MuxOf("/chat/{room}", h)) })
	}},
	{"ServeMux in chi, one name twice", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Handle("/chat/{room}", kit.MuxOf("/chat/{room}", h)) })
	}},
	{"chi", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Handle("/chat/{room}", h) })
	}},
	{"chi with method", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Method(http.MethodGet, "/chat/{room}", h) })
	}},
	{"chi Route", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Route("/chat", func(r chi.Router) { r.Handle("/{room}", h) }) })
	}},
	{"chi Route with the value", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Route("/chat/{room}", func(r chi.Router) { r.Handle("/", h) }) })
	}},
	{"chi Mount", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) {
			r.Mount("/chat", chiOf(func(r chi.Router) { r.Handle("/{room}", h) }))
		})
	}},
	{"chi With", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.With(passOn).Handle("/chat/{room}", h) })
	}},
	{"chi Group", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) {
			r.Group(func(r chi.Router) {
				r.Use(passOn)
				r.Route("/chat", func(r chi.Router) { r.Handle("/{room}", h) })
			})
		})
	}},
	{"chi in ServeMux", func(h http.Handler) http.Handler {
		return kit.MuxOf("/chat/", chiOf(func(r chi.Router) { r.Handle("/chat/{room}", h) }))
	}},
	{"chi in ServeMux, one name twice", func(h http.Handler) http.Handler {
		return kit.MuxOf("/chat/{room}", chiOf(func(r chi.Router) { r.Handle("/chat/{room}", h) }))
	}},
}

// answer dials target as it stands and returns the room, or what the server answered instead.
func answer(t *testing.T, srv *httptest.Server, target string) string {
	t.Helper()
	p := kit.Request(t, srv, kit.UpgradeRequest(target))
	defer p.Close()
	switch status := p.Res.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return p.ReadText()
	case status == http.StatusNotFound, status >= 300 && status < 400:
		return stopped
	default:
		return fmt.Sprintf("%d %s", status, strings.TrimSpace(p.Body))
	}
}

// byAll names the room after all that the RoomFuncs say.
func byAll(r *http.Request) (string, error) {
	byPath, err1 := wsroom.ByPath(r)
	value, err2 := wsroom.ByPathValue("room")(r)
	byPattern, err3 := wsroom.ByPattern(r)
	return byPath + " | " + value + " | " + byPattern, errors.Join(err1, err2, err3)
}

const (
	stopped = "stopped by the router"
	badName = "400 bad room name: it must have 1 to 255 bytes of UTF-8 without control characters"
)

func TestSameURLIsSameRoomUnderEveryRouter(t *testing.T) {
	tests := []struct {
		target, path, value string // of the room; path is what follows /chat/
		instead             string // what every client gets who asks for it
		notMux              bool   // ServeMux takes a slash in a segment for one between two
	}{
		{target: "/chat/general", path: "general", value: "general"},
		{target: "/chat/%67eneral", path: "general", value: "general"},
		{target: "/chat/%67%65%6e%65%72%61%6C", path: "general", value: "general"},
		{target: "/chat/general?room=other", path: "general", value: "general"},
		{target: "/chat/General", path: "General", value: "General"},
		{target: "/chat/a%2Fb", path: "a%2Fb", value: "a/b"},
		{target: "/chat/a%2fb", path: "a%2Fb", value: "a/b"},
		{target: "/chat/%61%2Fb", path: "a%2Fb", value: "a/b"},
		{target: "/chat/a/b", instead: stopped},
		{target: "/chat/a%252Fb", path: "a%252Fb", value: "a%2Fb"},
		{target: "/chat/%61%252Fb", path: "a%252Fb", value: "a%2Fb"},
		{target: "/chat/100%25", path: "100%25", value: "100%"},
		{target: "/chat/%31%30%30%25", path: "100%25", value: "100%"},
		{target: "/chat/100%2525", path: "100%2525", value: "100%25"},
		{target: "/chat/100%", instead: "400 400 Bad Request"},
		{target: "/chat/it's%20x", path: "it's x", value: "it's x"},
		{target: "/chat/it%27s%20x", path: "it's x", value: "it's x"},
		{target: "/chat/%C3%A9t%C3%A9", path: "été", value: "été"},
		{target: "/chat/%c3%a9t\u00e9", path: "été", value: "été"},
		{target: "/chat/\u00e9t\u00e9", path: "été", value: "été"},
		{target: "/chat/%F0%9F%92%AC", path: "💬", value: "💬"},
		{target: "/chat/a|b", path: "a|b", value: "a|b"},
		{target: "/chat/a%7Cb", path: "a|b", value: "a|b"},
		{target: "/chat/a%7Cb%2Fc", path: "a|b%2Fc", value: "a|b/c"},
		{target: "/chat/a|b%2Fc", path: "a|b%2Fc", value: "a|b/c", notMux: true},
		{target: "/chat/\u00e9%2Fc", path: "é%2Fc", value: "é/c", notMux: true},
		{target: `/chat/"<^>` + "`{}", path: "\"<^>`{}", value: "\"<^>`{}"},
		{target: "/chat/a+b", path: "a+b", value: "a+b"},
		{target: "/chat/a%2Bb", path: "a+b", value: "a+b"},
		{target: "/chat/a;b:c@d=e&f*g~h!i$j,k(l)", path: "a;b:c@d=e&f*g~h!i$j,k(l)", value: "a;b:c@d=e&f*g~h!i$j,k(l)"},
		{target: "/chat/%3F%23", path: "?#", value: "?#"},
		{target: "/chat/*", path: "*", value: "*"},
		{target: "/chat/...", path: "...", value: "..."},
		{target: "/chat/..%2Fadmin", path: "..%2Fadmin", value: "../admin"},
		{target: "/chat/%2e%2E%2fadmin", path: "..%2Fadmin", value: "../admin"},
		{target: "/chat/%2F", path: "%2F", value: "/", notMux: true},
		{target: "/chat/a%00", instead: badName},
		{target: "/chat/a%FFb", instead: badName},
		{target: "/chat//general", instead: stopped},
		{target: "//chat/general", instead: stopped},
		{target: "/x/../chat/general", instead: stopped},
	}
	for _, m := range mountings {
		t.Run(m.name, func(t *testing.T) {
			hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(byAll))
			srv := kit.Serve(t, m.mount(hub), hub)
			for _, test := range tests {
				want := test.instead
				if want == "" {
					want = "/chat/" + test.path + " | " + test.value + " | /chat/{room}"
				}
				if test.notMux && strings.Contains(m.name, "ServeMux") {
					continue
				}
				if got := answer(t, srv, test.target); got != want {
					t.Errorf("%s:\n got %s\nwant %s", test.target, got, want)
				}
			}
		})
	}
}

// wildcards lead all below /files/ to a hub.
var wildcards = []struct {
	mounting
	value string // what the wildcard is called
}{
	{mounting{"ServeMux", func(h http.Handler) http.Handler { return kit.MuxOf("/files/{path...}", h) }}, "path"},
	{mounting{"ServeMux behind StripPrefix", func(h http.Handler) http.Handler {
		return kit.MuxOf("/files/", http.StripPrefix("/files", kit.MuxOf("/{path...}", h)))
	}}, "path"},
	{mounting{"ServeMux in chi", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Mount("/files", kit.MuxOf("/files/{path...}", h)) })
	}}, "path"},
	{mounting{"chi", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Handle("/files/*", h) })
	}}, "*"},
	{mounting{"chi Route", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Route("/files", func(r chi.Router) { r.Handle("/*", h) }) })
	}}, "*"},
	{mounting{"chi Mount of the hub", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Mount("/files", h) })
	}}, "*"},
	{mounting{"chi behind StripPrefix", func(h http.Handler) http.Handler {
		return http.StripPrefix("/files", chiOf(func(r chi.Router) { r.Handle("/*", h) }))
	}}, "*"},
	{mounting{"chi and StripPrefix", func(h http.Handler) http.Handler {
		return chiOf(func(r chi.Router) { r.Handle("/files/*", http.StripPrefix("/files", h)) })
	}}, "*"},
	{mounting{"chi in ServeMux", func(h http.Handler) http.Handler {
		return kit.MuxOf("/files/", chiOf(func(r chi.Router) { r.Handle("/files/*", h) }))
	}}, "*"},
}

func TestWildcardValueIsCleanedAsAPath(t *testing.T) {
	tests := []struct{ target, room string }{
		{"/files/a/b", "a/b"},
		{"/files/%61/b", "a/b"},
		{"/files/a%2Fb", "a%2Fb"},
		{"/files/a%2fb", "a%2Fb"},
		{"/files/a%2Fb/a/b", "a%2Fb/a/b"},
		{"/files/a/b/a%2Fb", "a/b/a%2Fb"},
		{"/files/a%252Fb", "a%252Fb"},
		{"/files/a|b%2Fc", "a|b%2Fc"},
		{"/files/a|b/c", "a|b/c"},
		{"/files/100%25/x", "100%25/x"},
		{"/files/a/%2e/b", "a/b"},
		{"/files/a/%2e%2e/b", "b"},
		{"/files/%2e%2e/%2e%2e/b", "b"},
		{"/files/a/b/", "a/b"},
		{"/files/%C3%A9/x%20y", "é/x y"},
		{"/files/%2e", badName},
		{"/files/%01", badName},
	}
	for _, w := range wildcards {
		t.Run(w.name, func(t *testing.T) {
			hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(wsroom.ByPathValue(w.value)))
			srv := kit.Serve(t, w.mount(hub), hub)
			for _, test := range tests {
				if got := answer(t, srv, test.target); got != test.room {
					t.Errorf("%s: got %q, want %q", test.target, got, test.room)
				}
			}
		})
	}
}

func TestByPathCleansThePath(t *testing.T) {
	hub := wsroom.New(kit.TellRoom())
	srv := kit.Serve(t, hub)
	for _, test := range []struct{ target, room string }{
		{"/", "/"},
		{"/chat", "/chat"},
		{"/chat/", "/chat"},
		{"//chat///a//", "/chat/a"},
		{"/./chat/./a", "/chat/a"},
		{"/chat/b/../a", "/chat/a"},
		{"/chat/%2e%2E/a", "/a"},
		{"/../../a", "/a"},
		{"/a%2Fb", "/a%2Fb"},
		{"/a/b", "/a/b"},
		{"/a%5Cb", `/a\b`},
		{`/a\b`, `/a\b`},
		{"http://127.0.0.1/chat/a", "/chat/a"},
		{"http://127.0.0.1", "/"},
	} {
		if got := answer(t, srv, test.target); got != test.room {
			t.Errorf("%s: got %q, want %q", test.target, got, test.room)
		}
	}
}

// TestMissingPathValueIsAnError has routes without the value that the hub wants.
func TestMissingPathValueIsAnError(t *testing.T) {
	for _, pattern := range []string{"/chat/{room}", "/chat/{rooms...}", "/chat/a"} {
		hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("roo")))
		mounts := []http.Handler{kit.MuxOf(pattern, hub)}
		if !strings.Contains(pattern, "...") {
			mounts = append(mounts, chiOf(func(r chi.Router) { r.Handle(pattern, hub) }))
		}
		for _, m := range mounts {
			srv := kit.Serve(t, m, hub)
			if got := answer(t, srv, "/chat/a"); !strings.HasPrefix(got, "500 ") || !strings.Contains(got, `path value "roo"`) {
				t.Errorf("%s: got %q", pattern, got)
			}
		}
		kit.NothingLeft(t, hub)
	}
}

func TestRoomNameIsUpTo255BytesOfText(t *testing.T) {
	for _, test := range []struct {
		what, name string
		ok         bool
	}{
		{"empty", "", false},
		{"one byte", "a", true},
		{"255 bytes", strings.Repeat("a", 255), true},
		{"256 bytes", strings.Repeat("a", 256), false},
		{"254 bytes in 127 runes", strings.Repeat("é", 127), true},
		{"256 bytes in 128 runes", strings.Repeat("é", 128), false},
		{"no UTF-8", "a\xff", false},
		{"half a rune", "\xc3", false},
		{"a surrogate", "\xed\xa0\x80", false},
		{"overlong", "\xc0\xaf", false},
		{"NUL", "a\x00b", false},
		{"newline", "a\n", false},
		{"tab", "\t", false},
		{"escape", "\x1b[31m", false},
		{"US", "\x1f", false},
		{"DEL", "a\x7f", false},
		{"C1, first", "\u0080", false},
		{"NEL", "a\u0085b", false},
		{"C1, last", "\u009f", false},
		{"no-break space", "\u00a0", true},
		{"space", " ", true},
		{"replacement character", "\ufffd", true},
		{"percent", "%zz", true},
		{"slashes", "//", true},
		{"dots", "..", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			var authorized bool
			hub := wsroom.New(kit.TellRoom(),
				wsroom.WithRoom(func(*http.Request) (string, error) { return test.name, nil }),
				wsroom.WithAuthorize(func(*http.Request, string) error { authorized = true; return nil }))
			srv := kit.Serve(t, hub)
			want := badName
			if test.ok {
				want = test.name
			}
			if got := answer(t, srv, "/"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if authorized != test.ok {
				t.Errorf("the authorizer was asked: %t", authorized)
			}
			if err := hub.SendTextToRoom(test.name, "x"); (err == nil) != test.ok {
				t.Errorf("SendTextToRoom: %v", err)
			}
			kit.NothingLeft(t, hub)
		})
	}
}

func TestBadNameInTheURLIsABadRequest(t *testing.T) {
	hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(wsroom.ByPathValue("room")))
	byPath := wsroom.New(kit.TellRoom())
	mux := http.NewServeMux()
	mux.Handle("/mux/{room}", hub)
	mux.Handle("/chi/", chiOf(func(r chi.Router) { r.Handle("/chi/{room}", hub) }))
	mux.Handle("/path/", byPath)
	srv := kit.Serve(t, mux, hub, byPath)
	for _, segment := range []string{
		"%00", "a%0Ab", "%1F", "%7F", "%C2%85", "%C2%80", "%FF", "%C3", "%ED%A0%80", strings.Repeat("a", 256), strings.Repeat("%C3%A9", 128),
	} {
		for _, prefix := range []string{"/mux/", "/chi/", "/path/"} {
			if got := answer(t, srv, prefix+segment); got != badName {
				t.Errorf("%s%s: got %q", prefix, segment, got)
			}
		}
	}
	longest := strings.Repeat("%61", 255)
	for _, prefix := range []string{"/mux/", "/chi/"} {
		if got := answer(t, srv, prefix+longest); got != strings.Repeat("a", 255) {
			t.Errorf("%s: 255 bytes got %q", prefix, got)
		}
	}
	kit.NothingLeft(t, hub)
	kit.NothingLeft(t, byPath)
}

func TestRoomFuncErrorRefuses(t *testing.T) {
	for _, test := range []struct {
		what       string
		err        error
		status     int
		body       string
		retryAfter string
	}{
		{"any error", errors.New("pq: password of bob is hunter2"), 400, "Bad Request", ""},
		{"wrapped error", fmt.Errorf("room: %w", errors.New("hunter2")), 400, "Bad Request", ""},
		{"StatusError", &wsroom.StatusError{Status: 404, Message: "no such room"}, 404, "no such room", ""},
		{"wrapped StatusError", fmt.Errorf("hunter2: %w", &wsroom.StatusError{Status: 410, Message: "gone"}), 410, "gone", ""},
		{"without a message", &wsroom.StatusError{Status: 404}, 404, "Not Found", ""},
		{"to come again", &wsroom.StatusError{Status: 503, Message: "later", RetryAfter: 1500 * time.Millisecond}, 503, "later", "2"},
		{"no error status", &wsroom.StatusError{Status: 200, Message: "fine?"}, 500, "fine?", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			hub := wsroom.New(wsroom.WithRoom(func(*http.Request) (string, error) { return "x", test.err }))
			srv := kit.Serve(t, hub)
			res := wsroomtest.Refused(t, nil, srv.URL, test.status)
			if body, _ := io.ReadAll(res.Body); strings.TrimSpace(string(body)) != test.body {
				t.Errorf("got %q, want %q", body, test.body)
			}
			if got := res.Header.Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, test.retryAfter)
			}
			kit.NothingLeft(t, hub)
		})
	}
}

// parseRequest reads a GET of target as a server does.
func parseRequest(t testing.TB, target string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	return r
}

// reescaped is the plainest URL path of a room that ByPath named.
func reescaped(room string) (string, error) {
	segments := strings.Split(room, "/")
	for i, s := range segments {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return "", err
		}
		segments[i] = url.PathEscape(decoded)
	}
	return strings.Join(segments, "/"), nil
}
