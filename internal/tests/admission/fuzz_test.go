package admission_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// FuzzRoomNames routes any URL under both routers: where both come to the same route they name the
// same rooms, and a room that ByPath named is that of its own name.
func FuzzRoomNames(f *testing.F) {
	for _, path := range []string{
		"/x/general", "/x/%67eneral", "/x/a%2Fb", "/x/a/b", "/x/a%252Fb", "/x/100%25", "/x/it's%20x", "/x/it%27s%20x",
		"/x/%C3%A9", "/x/\u00e9%2Fa", "/x/a|b%2Fc", "/x//a", "/x/a/", "/x/./a", "/x/../a", "/x/%2e%2e/a", "/x/..%2Fa",
		"/y/a/b", "/y/%61/b/", "/y/a%2Fb/c%2Fd/e", "/y/a/", "/y/a/%2e%2e/b%25", "/y/a/b//c", "/y/a/%2F", "/y/%25/%2525",
		"/x/%FF", "/x/%00", "/x/" + strings.Repeat("a", 256), "//x/a", "/", "", "*", "http://h/x/a", "/x/a?b=c#d", "/x/{room}", `/x/\`,
	} {
		f.Add(path)
	}
	type names struct{ path, value, rest, pattern string }
	var got *names
	// call also checks what a RoomFunc may say: a name that the hub then checks, or a refusal.
	call := func(f wsroom.RoomFunc, r *http.Request) string {
		name, err := f(r)
		if refused := (*wsroom.StatusError)(nil); err != nil && (!errors.As(err, &refused) || name != "" && name != "/") {
			panic("not refused: " + name + " " + err.Error())
		}
		if err != nil {
			return "error: " + err.Error()
		}
		return name
	}
	note := func(value, rest string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = &names{call(wsroom.ByPath, r), call(wsroom.ByPathValue(value), r), call(wsroom.ByPathValue(rest), r), call(wsroom.ByPattern, r)}
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/x/{room}", note("room", "room"))
	mux.Handle("/y/{first}/{rest...}", note("first", "rest"))
	router := chi.NewRouter()
	router.Handle("/x/{room}", note("room", "room"))
	router.Route("/y/{first}", func(r chi.Router) { r.Handle("/*", note("first", "*")) })
	route := func(h http.Handler, r *http.Request) *names {
		got = nil
		h.ServeHTTP(httptest.NewRecorder(), r)
		return got
	}
	f.Fuzz(func(t *testing.T, path string) {
		parse := func(path string) *http.Request {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")))
			if err != nil {
				t.Skip()
			}
			return r
		}
		a, b := route(mux, parse(path)), route(router, parse(path))
		if a != nil && b != nil {
			if a.path != b.path {
				t.Errorf("ServeMux: by path %q, chi: %q", a.path, b.path)
			}
			// ServeMux routes on EscapedPath, in which a slash may lose its escape; chi on RawPath.
			u := parse(path).URL
			if samePath := u.RawPath == "" || u.RawPath == u.EscapedPath(); samePath && (a.value != b.value || a.rest != b.rest) {
				t.Errorf("ServeMux: %+v, chi: %+v", a, b)
			}
		}
		byPath, err := wsroom.ByPath(parse(path))
		if err != nil || !strings.HasPrefix(byPath, "/") || strings.Contains(byPath, "//") {
			t.Fatalf("ByPath: %q, %v", byPath, err)
		}
		again, err := reescaped(byPath)
		if err != nil {
			t.Fatalf("ByPath: %q: %v", byPath, err)
		}
		if name, err := wsroom.ByPath(parse(again)); name != byPath || err != nil {
			t.Errorf("%q is in the room %q, and %q in %q, %v", path, byPath, again, name, err)
		}
	})
}

// FuzzRoomNameCheck upgrades into rooms of any name and lets in exactly those that may be names.
func FuzzRoomNameCheck(f *testing.F) {
	for _, name := range []string{"", "a", "/", strings.Repeat("a", 255), strings.Repeat("a", 256), "\xff", "\x00", "\u0085", "a\u007f", "é", "\ufffd"} {
		f.Add(name)
	}
	hub := wsroom.New()
	f.Fuzz(func(t *testing.T, name string) {
		valid := len(name) >= 1 && len(name) <= 255 && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
		if err := hub.SendTextToRoom(name, "x"); (err == nil) != valid {
			t.Errorf("%q: %v", name, err)
		}
	})
}

// FuzzHandshake sends requests whose parts are anything, line ends too. The server switches protocols
// only for a valid handshake, always answers, and afterwards the hub is empty and its one place free.
func FuzzHandshake(f *testing.F) {
	const line, upgrade, version, key = "GET / HTTP/1.1", "websocket", "13", "dGhlIHNhbXBsZSBub25jZQ=="
	for _, more := range []string{
		"", "Origin: http://127.0.0.1", "Origin: null", "Origin: http://127.0.0.1\r\nOrigin: x", "Sec-WebSocket-Key: x",
		"Sec-WebSocket-Protocol: v1, v2\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=8, x",
		"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0", "Expect: 100-continue\r\nContent-Length: 1",
		"\r\n" + string(kit.RawFrame(0x81, "hello")), "\r\n\x88\x80", "X: y\r\n\r\nGET / HTTP/1.1\r\nHost: h", "\x00",
	} {
		f.Add(line, "Upgrade", upgrade, version, key, more)
	}
	for _, line := range []string{
		"GET /a%2Fb?x HTTP/1.1", "GET /%00 HTTP/1.1", "GET // HTTP/1.1", "GET * HTTP/1.1", "GET http://h/a HTTP/1.1", "GET " + strings.Repeat("/a", 128) + " HTTP/1.1",
		"POST / HTTP/1.1", "GET / HTTP/1.0", "PRI * HTTP/2.0", "CONNECT h:1 HTTP/1.1", "GET / HTTP/1.1\r\nHost: h\r\n", "", "\r\n", "\x16\x03\x01",
	} {
		f.Add(line, "keep-alive, upgrade", "h2c,WebSocket", version, key, "")
	}
	f.Add(line, "close", upgrade, version, key, "")
	f.Add(line, "Upgrade", "", version, key, "")
	f.Add(line, "Upgrade", upgrade, "12", key, "")
	f.Add(line, "Upgrade", upgrade, version, "short", "")
	f.Add(line, "Upgrade", upgrade, version, key, " ") // a folded line (RFC 9112, section 5.2)
	hub := wsroom.New(wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1), wsroom.WithMaxMembers(1), wsroom.WithCompression(0), wsroom.WithSubprotocols("v1"), kit.Echo())
	srv := &http.Server{Handler: hub, ErrorLog: log.New(io.Discard, "", 0)}
	listener, err := net.Listen("unix", filepath.Join(f.TempDir(), "socket")) // TCP would run out of ports
	if err != nil {
		f.Fatal(err)
	}
	go srv.Serve(listener)
	f.Cleanup(func() { srv.Close() })
	wsroomtest.CheckHub(f, hub)
	// exchange sends the bytes, and that there are no more, and returns the answer.
	exchange := func(t *testing.T, raw []byte) *http.Response {
		conn, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(kit.Patience))
		conn.Write(raw) // an error will show below
		conn.(*net.UnixConn).CloseWrite()
		r := bufio.NewReader(conn)
		for {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
				return res
			}
		}
	}
	f.Fuzz(func(t *testing.T, line, connection, upgrade, version, key, more string) {
		raw := []byte(line + "\r\nHost: 127.0.0.1\r\nConnection: " + connection + "\r\nUpgrade: " + upgrade +
			"\r\nSec-WebSocket-Version: " + version + "\r\nSec-WebSocket-Key: " + key + "\r\n" + more + "\r\n\r\n")
		res := exchange(t, raw)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		switch upgraded := res.StatusCode == http.StatusSwitchingProtocols; {
		case upgraded && (err != nil || !validHandshake(r)):
			t.Errorf("switched protocols for %q", raw)
		case !upgraded && res.StatusCode < 400:
			t.Errorf("answered %d to %q", res.StatusCode, raw)
		case !upgraded && (res.Header.Get("Sec-WebSocket-Accept") != "" || res.Header.Get("Sec-WebSocket-Protocol") != ""):
			t.Errorf("the refusal looks like an upgrade: %v", res.Header)
		}
		kit.NothingLeft(t, hub)
		kit.Until(t, "the place is free", func() bool {
			return exchange(t, []byte(kit.UpgradeRequest("/"))).StatusCode == http.StatusSwitchingProtocols
		})
		kit.NothingLeft(t, hub)
	})
}

// validHandshake is RFC 6455, section 4.2.1, and the hub's rules, said once more.
func validHandshake(r *http.Request) bool {
	tokens := func(key string) string {
		return "," + strings.ToLower(strings.NewReplacer(" ", "", "\t", "").Replace(strings.Join(r.Header.Values(key), ","))) + ","
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 || len(keys) != 1 ||
		!strings.Contains(tokens("Connection"), ",upgrade,") || !strings.Contains(tokens("Upgrade"), ",websocket,") ||
		r.Header.Get("Sec-WebSocket-Version") != "13" {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])) // space around it doesn't count (RFC 9110, section 5.5)
	if err != nil || len(key) != 16 {
		return false
	}
	if origins := r.Header.Values("Origin"); len(origins) > 1 || len(origins) == 1 &&
		!strings.EqualFold(origins[0], "http://"+r.Host) && !strings.EqualFold(origins[0], "https://"+r.Host) {
		return false
	}
	room, err := wsroom.ByPath(r)
	return err == nil && len(room) <= 255 && utf8.ValidString(room) && !strings.ContainsFunc(room, unicode.IsControl)
}
