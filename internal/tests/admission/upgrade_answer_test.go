package admission_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// noting is a ResponseWriter like those of routers and compressors that send the status with the first byte
// of a body: a 101, which has none, isn't sent.
type noting struct {
	http.ResponseWriter
	status int
}

func (w *noting) WriteHeader(status int) { w.status = status }

func (w *noting) Write(p []byte) (int, error) {
	w.ResponseWriter.WriteHeader(w.status)
	return w.ResponseWriter.Write(p)
}

func (w *noting) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// The client gets one 101, whatever the ResponseWriter makes of a status, with the headers that were set.
func TestUpgradeIsAnsweredUnderAnyResponseWriter(t *testing.T) {
	for what, with := range map[string]func(w http.ResponseWriter) http.ResponseWriter{
		"server's own":     func(w http.ResponseWriter) http.ResponseWriter { return w },
		"notes the status": func(w http.ResponseWriter) http.ResponseWriter { return &noting{ResponseWriter: w} },
		"passes it on":     func(w http.ResponseWriter) http.ResponseWriter { return &unwrapping{statusOnly{ResponseWriter: w}} },
		"notes it, in a pair": func(w http.ResponseWriter) http.ResponseWriter {
			return &unwrapping{statusOnly{ResponseWriter: &noting{ResponseWriter: w}}}
		},
	} {
		for _, start := range []func(*httptest.Server){(*httptest.Server).Start, (*httptest.Server).StartTLS} {
			t.Run(what, func(t *testing.T) {
				hub := wsroom.New(kit.Echo(), wsroom.WithCompression(1000), wsroom.WithSubprotocols("chat"))
				logged := &kit.LockedBuffer{}
				h := wrap(hub, func(w http.ResponseWriter) http.ResponseWriter {
					h := w.Header()
					h.Set("X-Set", "a\r\nX-Smuggled: b")
					h["X-Two"] = []string{"1", "2"}
					h["Bad Name"] = []string{"x"}
					h.Set("Content-Length", "7")
					h.Set("Set-Cookie", "id=1")
					return with(w)
				})
				srv := kit.ServeConfigured(t, h, func(srv *httptest.Server) {
					srv.Config.ErrorLog.SetOutput(logged)
					start(srv)
				}, hub)
				p := kit.Request(t, srv, kit.UpgradeRequest("/", "Sec-WebSocket-Protocol: chat", strings.TrimSpace(kit.OfferDeflate))+string(kit.RawFrame(0x81, "early")))
				if p.Res.StatusCode != http.StatusSwitchingProtocols || p.Res.Proto != "HTTP/1.1" {
					t.Fatalf("got %s %d %s", p.Res.Proto, p.Res.StatusCode, p.Body)
				}
				for name, want := range map[string]string{
					"X-Set": "a  X-Smuggled: b", "X-Smuggled": "", "X-Two": "1,2", "Bad Name": "", "Content-Length": "", "Set-Cookie": "id=1",
					"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
					"Sec-Websocket-Protocol": "chat", "Sec-Websocket-Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
				} {
					if got := strings.Join(p.Res.Header[name], ","); got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				if got := p.ReadText(); got != "early" {
					t.Errorf("got %q", got)
				}
				p.Frame(0x81, "late")
				if got := p.ReadText(); got != "late" {
					t.Errorf("got %q", got)
				}
				p.Close()
				kit.NothingLeft(t, hub)
				if logged.String() != "" {
					t.Errorf("the server logged %s", logged)
				}
			})
		}
	}
}

// A refusal by close frame comes in an upgraded connection, too.
func TestCloseFrameIsSentUnderAnyResponseWriter(t *testing.T) {
	hub := wsroom.New(kit.Deny(401), wsroom.WithRejectMode(wsroom.CloseFrame))
	srv := kit.Serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &noting{ResponseWriter: w} }), hub)
	p := kit.Request(t, srv, kit.UpgradeRequest("/"))
	if p.Res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %d", p.Res.StatusCode)
	}
	if code, _ := p.CloseCode(); code != 4401 {
		t.Errorf("close code %d", code)
	}
}

// A handshake has no body: what follows its header are frames. One that announces a body holds nothing.
func TestHandshakeWithABodyIsRefusedAtOnce(t *testing.T) {
	for _, mode := range []wsroom.RejectMode{wsroom.HTTP, wsroom.CloseFrame} {
		hub := wsroom.New(kit.Echo(), wsroom.WithMaxConns(1), wsroom.WithRejectMode(mode),
			wsroom.WithAuthorize(func(r *http.Request, _ string) error { t.Error("asked about", r.Header); return nil }))
		srv := kit.Serve(t, hub)
		for range 3 {
			for _, headers := range [][]string{
				{"Content-Length: 10"}, {"Content-Length: 9223372036854775807"}, {"Transfer-Encoding: chunked"},
				{"Content-Length: 10", "Expect: 100-continue"},
			} {
				wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", headers...)), http.StatusBadRequest, "has no body") // and none comes
			}
		}
		if n := hub.Stats(); n != (wsroom.Stats{}) || hub.Causes().Refused["handshake"] != 12 {
			t.Errorf("%+v, %v", n, hub.Causes())
		}
		kit.Shutdown(t, hub)
	}

	hub := wsroom.New(kit.Echo())
	srv := kit.Serve(t, hub)
	for _, headers := range [][]string{{"Content-Length: 0"}, {"Content-Length: 0", "Expect: 100-continue"}, {"Expect: 100-continue"}} {
		p := kit.Request(t, srv, kit.UpgradeRequest("/", headers...)+string(kit.RawFrame(0x81, "x")))
		if p.Res.StatusCode != http.StatusSwitchingProtocols || p.ReadText() != "x" {
			t.Errorf("%q: got %d", headers, p.Res.StatusCode)
		}
	}
}

// What is no valid handshake for another reason, too, doesn't wait for its body either.
func TestBadHandshakeWithABodyIsAnsweredAtOnce(t *testing.T) {
	srv := kit.Serve(t, wsroom.New(kit.Echo()))
	for _, body := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		for _, bad := range []string{"Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: x"} {
			wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", body, bad)), http.StatusBadRequest) // and none comes
		}
	}
}

// A client that doesn't take its 101, or is gone, gives its place back.
func TestClientThatTakesNoAnswerHoldsNoPlace(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithMaxConns(1)) }
	for what, leave := range map[string]func(conn net.Conn){
		"timeout": func(net.Conn) { time.Sleep(10 * time.Second) },
		"lost":    func(conn net.Conn) { conn.Close() },
	} {
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			conn, err := s.Ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, kit.UpgradeRequest("/a")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if hub.Len() != 1 {
				t.Errorf("%s: %d connections", what, hub.Len())
			}
			leave(conn)
			synctest.Wait()
			if got := hub.Causes(); got.Refused[what] != 1 || len(got.Refused)+len(got.Ended) != 1 || hub.Len() != 0 || len(hub.Rooms()) != 0 {
				t.Errorf("%s: %v, %d connections, rooms %q", what, got, hub.Len(), hub.Rooms())
			}
			s.DialRaw("/b").Close() // there is a place
		})
	}
}

// Subprotocols are told as the server spells them, to the client and to the application.
func TestSubprotocolIsSpelledAsTheServerDoes(t *testing.T) {
	got := make(chan string, 1)
	hub := wsroom.New(wsroom.WithSubprotocols("chat.V2", "chat.v1"), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		got <- c.Subprotocol() + " " + c.WebSocket().Subprotocol()
		return nil
	}))
	srv := kit.Serve(t, hub)
	for offer, want := range map[string]string{
		"chat.v1": "chat.v1", "CHAT.V1": "chat.v1", "Chat.v1, CHAT.v2": "chat.V2", "chat.v2,chat.V2": "chat.V2", "other": "", "chat": "",
	} {
		p := kit.Request(t, srv, kit.UpgradeRequest("/", "Sec-WebSocket-Protocol: "+offer))
		if header, app := p.Res.Header.Get("Sec-WebSocket-Protocol"), kit.Await(t, got, "OnConnect"); header != want || app != want+" "+want {
			t.Errorf("%q: the client got %q, the application %q, want %q", offer, header, app, want)
		}
		p.Close()
	}
	kit.NothingLeft(t, hub)
}

// A connection whose 101 is on its way is known, and whatever is asked of it is answered at once.
func TestNoMethodWaitsForAClient(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.WithSubprotocols("v1"), wsroom.WithIdentity(func(*http.Request) string { return "ann" }),
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return nil }))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		conn, err := s.Ln.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, kit.UpgradeRequest("/a", "Sec-WebSocket-Protocol: v1"))
		synctest.Wait() // the 101 waits to be taken
		begin := time.Now()
		for _, c := range hub.Members("/a") {
			if c.Subprotocol() != "v1" || c.WebSocket() == nil || c.WebSocket().Subprotocol() != "v1" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			c.Context()
			c.Set(1, 2)
			c.Get(1)
			if c.ID() == "" || c.Room() != "/a" || c.RemoteAddr() == "" || c.Identity() != "ann" || len(c.Rooms()) != 1 {
				t.Error("something is missing")
			}
			for _, err := range []error{c.SendText("x"), c.SendBinary(nil), c.SendJSON(1), c.Join("/b"), c.SendTextToThisRoom("x"), c.Leave("/b")} {
				if err != nil {
					t.Error(err)
				}
			}
			c.Queued()
			if _, err := c.ReadText(t.Context()); err == nil {
				t.Error("read")
			}
			if err := c.Close(4000, "bye"); err != nil {
				t.Error(err)
			}
			if err := c.SendText("x"); err != wsroom.ErrClosed {
				t.Error(err)
			}
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("it took %v", waited)
		}
		p := kit.ReadAnswer(t, conn) // nothing of it came before the 101
		if code, reason := p.CloseCode(); code != 4000 || reason != "bye" {
			t.Errorf("close frame %d %q", code, reason)
		}
	})
}

// What is written past the hub's queue doesn't overtake the 101 either.
func TestNothingOvertakesThe101(t *testing.T) {
	kit.InBubble(t, func() *wsroom.Hub { return wsroom.New() }, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		conn, err := s.Ln.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, kit.UpgradeRequest("/a"))
		synctest.Wait()
		for _, c := range hub.Members("/a") {
			go c.WebSocket().Write(t.Context(), websocket.MessageText, []byte("raw"))
		}
		for range 100 { // it waits for a lock, of which a bubble knows nothing
			runtime.Gosched()
		}
		if got := kit.ReadAnswer(t, conn).ReadText(); got != "raw" {
			t.Errorf("got %q", got)
		}
	})
}

// A hub that is shown to a ResponseWriter of a test, without a server, refuses as ever.
func TestRefusalsReachARecorder(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New())
	w := httptest.NewRecorder()
	hub.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusUpgradeRequired {
		t.Errorf("got %d", w.Code)
	}
}
