package admission_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// The log says which option would let a refused host or origin in. With that option it is let in.
func TestLogNamesTheOptionForARefusal(t *testing.T) {
	for _, test := range []struct {
		host, origin, option string
		with                 []wsroom.Option // as the log says
		opts                 []wsroom.Option
	}{
		{host: "127.0.0.1:8080", origin: "https://app.example.com", option: `WithOrigins("https://app.example.com")`,
			with: []wsroom.Option{wsroom.WithOrigins("https://app.example.com")}},
		{host: "app.example.com", origin: "HTTP://APP.example.com:81", option: `WithOrigins("http://app.example.com:81")`,
			with: []wsroom.Option{wsroom.WithOrigins("http://app.example.com:81")}},
		{host: "app.example.com", origin: "capacitor://localhost", option: `WithOrigins("capacitor://localhost")`,
			with: []wsroom.Option{wsroom.WithOrigins("capacitor://localhost")}},
		{host: "app.example.com", origin: "null", option: `WithInsecureAnyOrigin()`,
			with: []wsroom.Option{wsroom.WithInsecureAnyOrigin()}},
		{host: "Evil.example:99", option: `WithHosts("Evil.example:99")`,
			opts: []wsroom.Option{wsroom.WithHosts("a.example")}, with: []wsroom.Option{wsroom.WithHosts("Evil.example:99")}},
		{host: "evil.example", origin: "http://evil.example", option: `WithHosts("evil.example")`,
			opts: []wsroom.Option{wsroom.WithHosts("a.example")}, with: []wsroom.Option{wsroom.WithHosts("evil.example")}},
	} {
		var b kit.LockedBuffer
		log := wsroom.WithLogger(slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})))
		strict := kit.Serve(t, wsroom.New(append(test.opts, log)...))
		open := kit.Serve(t, wsroom.New(append(test.with, log)...))
		headers := []string{"Host: " + test.host}
		if test.origin != "" {
			headers = append(headers, "Origin: "+test.origin)
		}
		p := kit.Request(t, strict, kit.UpgradeRequest("/", headers...))
		wantRefusal(t, p, http.StatusForbidden, "not allowed")
		if tells := strings.Contains(p.Body, "With"); tells != (test.origin == "") {
			t.Errorf("host %q, origin %q: the body is %q", test.host, test.origin, p.Body)
		}
		if test.origin == "" && (!strings.Contains(p.Body, test.host) || !strings.Contains(p.Body, "WithHosts")) {
			t.Errorf("host %q: the body is %q", test.host, p.Body)
		}

		var line struct{ Level, Msg, Cause, Host, Origin, Option string }
		if err := json.Unmarshal([]byte(b.String()), &line); err != nil {
			t.Fatalf("%v; logged %q", err, b.String())
		}
		if line.Level != "DEBUG" || line.Host != test.host || line.Origin != test.origin || line.Option != test.option {
			t.Errorf("logged %+v, want the option %s", line, test.option)
		}
		if p := kit.Request(t, open, kit.UpgradeRequest("/", headers...)); p.Res.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("with %s: got %d", test.option, p.Res.StatusCode)
		}
	}
}

// Whoever opens the address in a browser's window, or comes through a proxy that drops headers, is told what to do.
func TestWhatIsNoUpgradeIsToldHowToConnect(t *testing.T) {
	hub := wsroom.New()
	mux := http.NewServeMux()
	mux.Handle("/chat/", http.StripPrefix("/chat", hub))
	plain, withTLS := kit.Serve(t, mux, hub), kit.ServeConfigured(t, mux, (*httptest.Server).StartTLS, hub)
	get := "GET /chat/caf%C3%A9?token=SECRET HTTP/1.1\r\nHost: a.example\r\nSec-Fetch-Mode: navigate\r\n\r\n"
	wantRefusal(t, kit.Request(t, plain, get), http.StatusUpgradeRequired,
		`this is a WebSocket endpoint: connect with new WebSocket("ws://a.example/chat/caf%C3%A9")`)
	p := kit.Request(t, withTLS, get)
	wantRefusal(t, p, http.StatusUpgradeRequired, `new WebSocket("wss://a.example/chat/caf%C3%A9")`)
	if strings.Contains(p.Body, "SECRET") || !strings.HasPrefix(p.Res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%v %q", p.Res.Header, p.Body)
	}
	for _, dropped := range [][]string{{"Upgrade"}, {"Connection"}, {"Connection: close", "Upgrade"}} {
		p := kit.Request(t, plain, kit.UpgradeRequest("/chat/a", dropped...))
		wantRefusal(t, p, http.StatusUpgradeRequired, "proxy", "Upgrade: websocket")
	}
	for _, odd := range []string{"<script>", "\"x\""} {
		p := kit.Request(t, plain, "GET /chat/"+odd+" HTTP/1.1\r\nHost: a.example\r\n\r\n")
		if p.Res.StatusCode == http.StatusUpgradeRequired && p.Res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: a browser may take the answer for a page: %v", odd, p.Res.Header)
		}
	}
}
