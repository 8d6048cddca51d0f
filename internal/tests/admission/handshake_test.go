package admission_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestWhatIsNoUpgradeGets426(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(kit.CallbackCount(&calls)...)
	srv := kit.Serve(t, hub)
	for what, request := range map[string]string{
		"plain GET":              "GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
		"plain POST":             "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		"no Upgrade":             kit.UpgradeRequest("/x", "Upgrade"),
		"no Connection":          kit.UpgradeRequest("/x", "Connection"),
		"Connection: keep-alive": kit.UpgradeRequest("/x", "Connection: keep-alive"),
		"another protocol":       kit.UpgradeRequest("/x", "Upgrade: h2c"),
		"nearly the protocol":    kit.UpgradeRequest("/x", "Upgrade: websockets"),
		"HTTP/1.0":               kit.RequestLine("GET /x HTTP/1.0"),
	} {
		t.Run(what, func(t *testing.T) {
			p := kit.Request(t, srv, request)
			wantRefusal(t, p, http.StatusUpgradeRequired, "WebSocket")
			if what != "HTTP/1.0" && (p.Res.Header.Get("Upgrade") != "websocket" || p.Res.Header.Get("Connection") != "Upgrade") {
				t.Errorf("the answer doesn't offer the upgrade: %v", p.Res.Header)
			}
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	kit.NothingLeft(t, hub)
}

func TestBadHandshakeIsRefusedWithTheReason(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(kit.CallbackCount(&calls)...)
	behind := hub.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed on") }))
	for _, h := range []http.Handler{hub, behind} {
		srv := kit.Serve(t, h, hub)
		for _, test := range []struct {
			what, request string
			status        int
			reason        string
		}{
			{"no key", kit.UpgradeRequest("/", "Sec-WebSocket-Key"), 400, "missing Sec-WebSocket-Key"},
			{"two keys", kit.UpgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "multiple Sec-WebSocket-Key"},
			{"empty key", kit.UpgradeRequest("/", "Sec-WebSocket-Key: "), 400, "16 byte"},
			{"short key", kit.UpgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, "16 byte"},
			{"long key", kit.UpgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE="), 400, "16 byte"},
			{"key that isn't base64", kit.UpgradeRequest("/", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, "16 byte"},
			{"version 12", kit.UpgradeRequest("/", "Sec-WebSocket-Version: 12"), 400, "only 13"},
			{"version 0", kit.UpgradeRequest("/", "Sec-WebSocket-Version: 0"), 400, "only 13"},
			{"version list", kit.UpgradeRequest("/", "Sec-WebSocket-Version: 13, 8"), 400, "only 13"},
			{"no version", kit.UpgradeRequest("/", "Sec-WebSocket-Version"), 400, "only 13"},
			{"POST", kit.RequestLine("POST / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"PUT", kit.RequestLine("PUT / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"HTTP/1.0", kit.RequestLine("GET / HTTP/1.0"), 426, "HTTP/1.1"},
		} {
			t.Run(test.what, func(t *testing.T) {
				p := kit.Request(t, srv, test.request)
				wantRefusal(t, p, test.status, test.reason)
				if got := p.Res.Header.Get("Sec-WebSocket-Version"); test.reason == "only 13" && got != "13" {
					t.Errorf("Sec-WebSocket-Version is %q", got)
				}
				if got := p.Res.Header.Get("Allow"); test.status == 405 && got != "GET" {
					t.Errorf("Allow is %q", got)
				}
			})
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	kit.NothingLeft(t, hub)
}

func TestHandshakeIsReadAsTheRFCWantsIt(t *testing.T) {
	hub := wsroom.New(kit.TellRoom(), wsroom.WithSubprotocols("v2", "v1"))
	srv := kit.Serve(t, hub.Middleware(http.NotFoundHandler()), hub)
	for what, headers := range map[string][]string{
		"Firefox":        {"Connection: keep-alive, Upgrade"},
		"case":           {"connection: upgrade", "upgrade: WebSocket"},
		"lists":          {"Connection: foo,  UPGRADE ,bar", "Upgrade: h2c, websocket"},
		"several lines":  {"Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"},
		"space at key":   {"Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ== "},
		"extensions":     {"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-foo"},
		"no such offer":  {"Sec-WebSocket-Protocol: v9"},
		"second of ours": {"Sec-WebSocket-Protocol: v9, v1"},
		"first of ours":  {"Sec-WebSocket-Protocol: v1, v2"},
	} {
		t.Run(what, func(t *testing.T) {
			if what == "case" {
				headers = append(headers, "Connection", "Upgrade")
			}
			p := kit.Request(t, srv, kit.UpgradeRequest("/x", headers...))
			if p.Res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %d %s", p.Res.StatusCode, p.Body)
			}
			// The key and its answer are those of RFC 6455, section 1.3.
			if got := p.Res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("Sec-WebSocket-Accept is %q", got)
			}
			want := map[string]string{"second of ours": "v1", "first of ours": "v2"}[what]
			if got := p.Res.Header.Get("Sec-WebSocket-Protocol"); got != want {
				t.Errorf("subprotocol %q, want %q", got, want)
			}
			if got := p.Res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("extensions %q, which nobody wants", got)
			}
			if got := p.ReadText(); got != "/x" {
				t.Errorf("room %q", got)
			}
			p.Close()
		})
	}
	kit.NothingLeft(t, hub)
}

func TestHTTP2IsRefusedClearly(t *testing.T) {
	hub := wsroom.New(kit.Echo())
	mux := http.NewServeMux()
	mux.Handle("/ws", hub)
	mux.Handle("/both", hub.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })))
	srv := kit.ServeConfigured(t, mux, func(srv *httptest.Server) {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	}, hub)
	fetch := func(path string) (*http.Response, string) {
		res, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	res, body := fetch("/ws")
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusUpgradeRequired || !strings.Contains(body, "HTTP/1.1") || !strings.Contains(body, "HTTP/2.0") {
		t.Errorf("%s: got %d %q", res.Proto, res.StatusCode, body)
	}
	if how := `this is a WebSocket endpoint: connect with new WebSocket("wss` + strings.TrimPrefix(srv.URL, "https") + `/ws")`; !strings.Contains(body, how) ||
		res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("an opened page is told %q", body)
	}
	if res, body := fetch("/both"); res.StatusCode != 200 || body != "HTTP/2.0" {
		t.Errorf("through Middleware: got %d %q", res.StatusCode, body)
	}
	// The CONNECT of RFC 8441, which net/http offers no client for.
	r := httptest.NewRequest(http.MethodConnect, "/both", nil)
	r.ProtoMajor, r.Proto = 2, "HTTP/2.0"
	r.Header[":protocol"] = []string{"websocket"}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusUpgradeRequired || !strings.Contains(w.Body.String(), "serve this route over HTTP/1.1 only") {
		t.Errorf("extended CONNECT: got %d %q", w.Code, w.Body)
	}
	// What browsers do at the same server.
	p := kit.Request(t, srv, kit.UpgradeRequest("/ws"))
	p.Frame(0x81, "hello")
	if got := p.ReadText(); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestMessagesOverTLS(t *testing.T) {
	hub := wsroom.New(wsroom.WithMaxMessageSize(2<<20), wsroom.WithSendQueue(1000, 8<<20),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
	srv := kit.ServeConfigured(t, hub, (*httptest.Server).StartTLS, hub)
	a, b := kit.Dial(t, srv, "/x"), kit.Dial(t, srv, "/x")
	for _, size := range []int{0, 1, 125, 126, 1 << 12, 1<<14 + 1, 1 << 16, 1<<16 + 1, 1 << 20} {
		text := strings.Repeat("x", size)
		a.SendText(text)
		a.ExpectText(text)
		b.ExpectText(text)
	}
	for i := range 200 {
		hub.SendTextToRoom("/x", fmt.Sprint(i))
	}
	for i := range 200 {
		a.ExpectText(fmt.Sprint(i))
		b.ExpectText(fmt.Sprint(i))
	}
	a.Close(websocket.StatusNormalClosure, "")
	b.Close(websocket.StatusNormalClosure, "")
	kit.NothingLeft(t, hub)
}

// TestFirstFramesMayComeWithTheHandshake sends what a client without patience sends, cut in pieces:
// the first goes out with the handshake, the others once the answer has come.
func TestFirstFramesMayComeWithTheHandshake(t *testing.T) {
	long := strings.Repeat("x", 3<<10) // with the handshake nearly all that net/http buffers
	longer := strings.Repeat("y", 20<<10)
	many := slices.Repeat([]string{"hello"}, 1000)
	for _, test := range []struct {
		what  string
		texts []string
		cuts  []int // of the frames; negative: from their end
	}{
		{"one frame", []string{"a"}, nil},
		{"three frames", []string{"a", "b", "c"}, nil},
		{"an empty frame", []string{""}, nil},
		{"the first byte", []string{"hello"}, []int{1}},
		{"half a header", []string{"hello"}, []int{4}},
		{"a header", []string{"hello"}, []int{6}},
		{"half a frame", []string{"hello"}, []int{8}},
		{"all but a byte", []string{"hello"}, []int{-1}},
		{"a frame and a half", []string{"hello", "world"}, []int{11 + 8}},
		{"a frame byte by byte", []string{"hello"}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"a long frame", []string{long}, nil},
		{"half a long frame", []string{long}, []int{1000}},
		{"a frame that no buffer holds", []string{longer}, nil},
		{"frames that no buffer holds", many, nil},
		{"frames that no buffer holds, cut", many, []int{4096, 5000}},
		{"long ones and short ones", []string{"a", longer, "b", long, ""}, []int{3, 2000}},
	} {
		for name, serving := range map[string]wsroom.Option{
			"OnText": kit.Echo(),
			"Serve": wsroom.Serve(func(c *wsroom.Conn) error {
				for {
					text, err := c.ReadText(context.Background())
					if err != nil {
						return err
					}
					c.SendText(text)
				}
			}),
		} {
			for _, start := range []func(*httptest.Server){(*httptest.Server).Start, (*httptest.Server).StartTLS} {
				t.Run(test.what+" "+name, func(t *testing.T) {
					hub := wsroom.New(serving)
					srv := kit.ServeConfigured(t, hub, start, hub)
					var frames []byte
					for _, text := range test.texts {
						frames = append(frames, kit.RawFrame(0x81, text)...)
					}
					from := 0
					p := &kit.Peer{}
					conn := kit.Connect(t, srv)
					for i, to := range append(test.cuts, len(frames)) {
						if to < 0 {
							to += len(frames)
						}
						piece := string(frames[from:to])
						if from = to; i == 0 {
							piece = kit.UpgradeRequest("/") + piece
						}
						if _, err := io.WriteString(conn, piece); err != nil {
							t.Fatal(err)
						}
						if i == 0 {
							p = kit.ReadAnswer(t, conn)
						}
					}
					for _, want := range test.texts {
						if got := p.ReadText(); got != want {
							t.Fatalf("got %q, want %q", kit.Short(got), kit.Short(want))
						}
					}
				})
			}
		}
	}
}

func TestFirstFramesInALargerBufferAreKept(t *testing.T) {
	hub := wsroom.New(kit.Echo())
	texts := slices.Repeat([]string{strings.Repeat("x", 1000)}, 10)
	var frames []byte
	for _, text := range texts {
		frames = append(frames, kit.RawFrame(0x81, text)...)
	}
	srv := kit.Serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &roomy{w, len(frames)} }), hub)
	p := kit.Request(t, srv, kit.UpgradeRequest("/")+string(frames))
	for i, want := range texts {
		if got := p.ReadText(); got != want {
			t.Fatalf("message %d: got %q", i, kit.Short(got))
		}
	}
}
