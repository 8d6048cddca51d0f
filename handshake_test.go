package wsroom_test

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
)

func TestWhatIsNoUpgradeGets426(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	srv := serve(t, hub)
	for what, request := range map[string]string{
		"plain GET":              "GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
		"plain POST":             "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		"no Upgrade":             upgradeRequest("/x", "Upgrade"),
		"no Connection":          upgradeRequest("/x", "Connection"),
		"Connection: keep-alive": upgradeRequest("/x", "Connection: keep-alive"),
		"another protocol":       upgradeRequest("/x", "Upgrade: h2c"),
		"nearly the protocol":    upgradeRequest("/x", "Upgrade: websockets"),
		"HTTP/1.0":               requestLine("GET /x HTTP/1.0"),
	} {
		t.Run(what, func(t *testing.T) {
			p := knock(t, srv, request)
			wantRefusal(t, p, http.StatusUpgradeRequired, "WebSocket")
			if what != "HTTP/1.0" && (p.res.Header.Get("Upgrade") != "websocket" || p.res.Header.Get("Connection") != "Upgrade") {
				t.Errorf("the answer doesn't offer the upgrade: %v", p.res.Header)
			}
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	nothingLeft(t, hub)
}

func TestBadHandshakeIsRefusedWithTheReason(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	behind := hub.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed on") }))
	for _, h := range []http.Handler{hub, behind} {
		srv := serve(t, h, hub)
		for _, test := range []struct {
			what, request string
			status        int
			reason        string
		}{
			{"no key", upgradeRequest("/", "Sec-WebSocket-Key"), 400, "missing Sec-WebSocket-Key"},
			{"two keys", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "multiple Sec-WebSocket-Key"},
			{"empty key", upgradeRequest("/", "Sec-WebSocket-Key: "), 400, "16 byte"},
			{"short key", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, "16 byte"},
			{"long key", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE="), 400, "16 byte"},
			{"key that isn't base64", upgradeRequest("/", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, "16 byte"},
			{"version 12", upgradeRequest("/", "Sec-WebSocket-Version: 12"), 400, "only 13"},
			{"version 0", upgradeRequest("/", "Sec-WebSocket-Version: 0"), 400, "only 13"},
			{"version list", upgradeRequest("/", "Sec-WebSocket-Version: 13, 8"), 400, "only 13"},
			{"no version", upgradeRequest("/", "Sec-WebSocket-Version"), 400, "only 13"},
			{"POST", requestLine("POST / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"PUT", requestLine("PUT / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"HTTP/1.0", requestLine("GET / HTTP/1.0"), 426, "HTTP/1.1"},
		} {
			t.Run(test.what, func(t *testing.T) {
				p := knock(t, srv, test.request)
				wantRefusal(t, p, test.status, test.reason)
				if got := p.res.Header.Get("Sec-WebSocket-Version"); test.reason == "only 13" && got != "13" {
					t.Errorf("Sec-WebSocket-Version is %q", got)
				}
				if got := p.res.Header.Get("Allow"); test.status == 405 && got != "GET" {
					t.Errorf("Allow is %q", got)
				}
			})
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	nothingLeft(t, hub)
}

func TestHandshakeIsReadAsTheRFCWantsIt(t *testing.T) {
	hub := wsroom.New(tellRoom(), wsroom.WithSubprotocols("v2", "v1"))
	srv := serve(t, hub.Middleware(http.NotFoundHandler()), hub)
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
			p := knock(t, srv, upgradeRequest("/x", headers...))
			if p.res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %d %s", p.res.StatusCode, p.body)
			}
			// The key and its answer are those of RFC 6455, section 1.3.
			if got := p.res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("Sec-WebSocket-Accept is %q", got)
			}
			want := map[string]string{"second of ours": "v1", "first of ours": "v2"}[what]
			if got := p.res.Header.Get("Sec-WebSocket-Protocol"); got != want {
				t.Errorf("subprotocol %q, want %q", got, want)
			}
			if got := p.res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("extensions %q, which nobody wants", got)
			}
			if got := p.readText(); got != "/x" {
				t.Errorf("room %q", got)
			}
			p.Close()
		})
	}
	nothingLeft(t, hub)
}

func TestHTTP2IsRefusedClearly(t *testing.T) {
	hub := wsroom.New(echo())
	mux := http.NewServeMux()
	mux.Handle("/ws", hub)
	mux.Handle("/both", hub.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })))
	srv := serveConfigured(t, mux, func(srv *httptest.Server) {
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
	if res, body := fetch("/both"); res.StatusCode != 200 || body != "HTTP/2.0" {
		t.Errorf("through Middleware: got %d %q", res.StatusCode, body)
	}
	// The CONNECT of RFC 8441, which net/http offers no client for.
	r := httptest.NewRequest(http.MethodConnect, "/both", nil)
	r.ProtoMajor, r.Proto = 2, "HTTP/2.0"
	r.Header[":protocol"] = []string{"websocket"}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusUpgradeRequired || !strings.Contains(w.Body.String(), "HTTP/1.1") {
		t.Errorf("extended CONNECT: got %d %q", w.Code, w.Body)
	}
	// What browsers do at the same server.
	p := knock(t, srv, upgradeRequest("/ws"))
	p.frame(0x81, "hello")
	if got := p.readText(); got != "hello" {
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
	srv := serveConfigured(t, hub, (*httptest.Server).StartTLS, hub)
	a, b := dial(t, srv, "/x"), dial(t, srv, "/x")
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
	nothingLeft(t, hub)
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
			"OnText": echo(),
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
					srv := serveConfigured(t, hub, start, hub)
					var frames []byte
					for _, text := range test.texts {
						frames = append(frames, rawFrame(0x81, text)...)
					}
					from := 0
					p := &peer{}
					conn := connect(t, srv)
					for i, to := range append(test.cuts, len(frames)) {
						if to < 0 {
							to += len(frames)
						}
						piece := string(frames[from:to])
						if from = to; i == 0 {
							piece = upgradeRequest("/") + piece
						}
						if _, err := io.WriteString(conn, piece); err != nil {
							t.Fatal(err)
						}
						if i == 0 {
							p = readAnswer(t, conn)
						}
					}
					for _, want := range test.texts {
						if got := p.readText(); got != want {
							t.Fatalf("got %q, want %q", short(got), short(want))
						}
					}
				})
			}
		}
	}
}

func TestFirstFramesInALargerBufferAreKept(t *testing.T) {
	hub := wsroom.New(echo())
	texts := slices.Repeat([]string{strings.Repeat("x", 1000)}, 10)
	var frames []byte
	for _, text := range texts {
		frames = append(frames, rawFrame(0x81, text)...)
	}
	srv := serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &roomy{w, len(frames)} }), hub)
	p := knock(t, srv, upgradeRequest("/")+string(frames))
	for i, want := range texts {
		if got := p.readText(); got != want {
			t.Fatalf("message %d: got %q", i, short(got))
		}
	}
}
