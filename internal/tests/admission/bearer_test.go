package admission_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// bearer is the entry of a subprotocol list that holds the token.
func bearer(token string) string {
	return "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

func TestBearerTokenIsOneTokenOrNone(t *testing.T) {
	for _, test := range []struct {
		what          string
		authorization []string
		protocols     []string
		want          string // "": none
	}{
		{what: "nothing"},
		{"header", []string{"Bearer abc.def-_~+/=="}, nil, "abc.def-_~+/=="},
		{"header, any case", []string{"bEARER abc"}, nil, "abc"},
		{"header, spaces", []string{"Bearer   abc "}, nil, "abc"},
		{"subprotocol", nil, []string{bearer("abc")}, "abc"},
		{"subprotocol of what URLs change", nil, []string{bearer("~~~>>>???")}, "~~~>>>???"},
		{"subprotocol, any case", nil, []string{"Bearer." + bearer("abc")[7:]}, "abc"},
		{"subprotocol in a list", nil, []string{"chat , " + bearer("abc") + ",v2"}, "abc"},
		{"subprotocol in a second line", nil, []string{"chat", bearer("abc")}, "abc"},
		{"another scheme beside it", []string{"Basic dTpw"}, []string{bearer("abc")}, "abc"},
		{"another scheme", []string{"Basic abc"}, nil, ""},
		{"no scheme", []string{"abc"}, nil, ""},
		{"scheme without a space", []string{"Bearerabc"}, nil, ""},
		{"empty header", []string{""}, nil, ""},
		{"empty token", []string{"Bearer "}, nil, ""},
		{"only the scheme", []string{"Bearer"}, nil, ""},
		{"two words", []string{"Bearer abc def"}, nil, ""},
		{"control character", []string{"Bearer abc\tdef"}, nil, ""},
		{"not ASCII", []string{"Bearer ä"}, nil, ""},
		{"two headers", []string{"Bearer abc", "Bearer abc"}, nil, ""},
		{"two headers, one empty", []string{"Bearer", "Bearer abc"}, nil, ""},
		{"both ways", []string{"Bearer abc"}, []string{bearer("abc")}, ""},
		{"both ways, one invalid", []string{"Bearer abc"}, []string{"bearer.!"}, ""},
		{"twice in a list", nil, []string{bearer("abc") + ", " + bearer("abc")}, ""},
		{"twice, the first invalid", nil, []string{"bearer.!, " + bearer("abc")}, ""},
		{"twice, the last empty", nil, []string{bearer("abc") + ", bearer."}, ""},
		{"empty subprotocol", nil, []string{"bearer."}, ""},
		{"no prefix", nil, []string{"bearer", "xbearer.YWJj", "chat"}, ""},
		{"padding", nil, []string{"bearer.YWI="}, ""},
		{"bits left over", nil, []string{"bearer.YWJ"}, ""},
		{"base64 of the other kind", nil, []string{"bearer." + base64.RawStdEncoding.EncodeToString([]byte("~~~>>>???"))}, ""},
		{"not base64", nil, []string{"bearer.a"}, ""},
		{"a space inside", nil, []string{bearer("abc def")}, ""},
		{"a line end inside", nil, []string{bearer("abc\r\n")}, ""},
		{"a NUL inside", nil, []string{bearer("abc\x00")}, ""},
		{"no UTF-8", nil, []string{bearer("abc\xff")}, ""},
	} {
		r := &http.Request{Header: http.Header{"Authorization": test.authorization, "Sec-Websocket-Protocol": test.protocols}}
		if token, ok := wsroom.BearerToken(r); token != test.want || ok != (test.want != "") {
			t.Errorf("%s: got %q, %v; want %q", test.what, token, ok, test.want)
		}
	}
}

func TestSubprotocolsAreNoTokens(t *testing.T) {
	for _, name := range []string{"bearer.x", "Bearer.x", "bearer."} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, "WithSubprotocols") {
					t.Errorf("%q: %s", name, text)
				}
			}()
			wsroom.New(wsroom.WithSubprotocols("chat", name))
		}()
	}
	wsroom.New(wsroom.WithSubprotocols("bearer", "x.bearer.y"))
}

// A token from the subprotocol list is in no answer and in no line of the log, whatever becomes of the
// request.
func TestBearerTokenIsNeverEchoedOrLogged(t *testing.T) {
	const secret = "s3cr3t-t0k3n"
	for _, mode := range []wsroom.RejectMode{wsroom.HTTP, wsroom.CloseFrame} {
		logged := &kit.LockedBuffer{}
		got := make(chan string, 1)
		hub := wsroom.New(
			wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))),
			wsroom.WithRejectMode(mode),
			wsroom.WithSubprotocols("chat"),
			wsroom.WithMaxConnsPer(func(r *http.Request) string { return r.URL.Query().Get("key") }, 1),
			wsroom.WithRoom(func(r *http.Request) (string, error) {
				if r.URL.Query().Has("noroom") {
					return "", errors.New("no room")
				}
				return r.URL.Query().Get("room"), nil
			}),
			wsroom.WithAuthorize(func(r *http.Request, room string) error {
				switch room {
				case "fault":
					return &wsroom.StatusError{Status: 500}
				case "held":
					return nil
				}
				token, ok := wsroom.BearerToken(r)
				if room == "closed" || !ok {
					return &wsroom.StatusError{Status: 401}
				}
				got <- token
				return nil
			}),
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				if c.Room() == "held" {
					return nil
				}
				panic("a panic is logged")
			}))
		srv := kit.Serve(t, hub)
		hidden := kit.Serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &statusOnly{ResponseWriter: w} }), hub)
		kit.Dial(t, srv, "/?room=held&key=full")
		for i, list := range []string{"chat, " + bearer(secret), bearer(secret), bearer(secret) + ", v2", "v2, chat, " + bearer(secret)} {
			protocols := "Sec-WebSocket-Protocol: " + list
			for what, request := range map[string]string{
				"admitted":       kit.UpgradeRequest(fmt.Sprint("/?room=open&key=", i), protocols),
				"bad handshake":  kit.UpgradeRequest("/?room=open", protocols, "Sec-WebSocket-Version: 12"),
				"no upgrade":     kit.UpgradeRequest("/?room=open", protocols, "Upgrade"),
				"foreign origin": kit.UpgradeRequest("/?room=open", protocols, "Origin: null"),
				"room error":     kit.UpgradeRequest("/?noroom", protocols),
				"bad room":       kit.UpgradeRequest("/?room=", protocols),
				"not authorized": kit.UpgradeRequest("/?room=closed", protocols),
				"limit":          kit.UpgradeRequest("/?room=open&key=full", protocols),
				"fault":          kit.UpgradeRequest("/?room=fault", protocols),
				"hijack":         kit.UpgradeRequest("/?room=open", protocols),
			} {
				server := srv
				if what == "hijack" {
					server = hidden
				}
				conn := kit.Connect(t, server)
				io.WriteString(conn, strings.Replace(request, "Connection: Upgrade", "Connection: Upgrade, close", 1))
				conn.(*net.TCPConn).CloseWrite()
				answer, err := io.ReadAll(conn)
				if err != nil || len(answer) == 0 {
					t.Fatalf("%s: %q, %v", what, answer, err)
				}
				for _, leak := range []string{secret, bearer(secret)[7:]} {
					if bytes.Contains(answer, []byte(leak)) {
						t.Errorf("mode %d, %s: the answer has the token: %q", mode, what, answer)
					}
				}
				if chosen := strings.Contains(string(answer), "Sec-Websocket-Protocol: chat\r\n"); what == "admitted" && chosen != strings.Contains(list, "chat") {
					t.Errorf("offered %q: %q", list, answer)
				}
			}
			if token := kit.Await(t, got, "the token"); token != secret {
				t.Errorf("token %q", token)
			}
		}
		if log := logged.String(); !strings.Contains(log, "a panic is logged") || !strings.Contains(log, "can't be upgraded") ||
			strings.Contains(log, secret) || strings.Contains(log, bearer(secret)[7:]) {
			t.Errorf("the log has the token, or not what was to be logged:\n%s", log)
		}
	}
}
