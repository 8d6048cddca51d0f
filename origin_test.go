package wsroom_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wsroom/wsroom"
)

func TestOnlyTheSameOriginByDefault(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	plain := serve(t, hub)
	withTLS := serveConfigured(t, hub, (*httptest.Server).StartTLS, hub)
	for _, test := range []struct {
		origin     string
		plain, tls bool
	}{
		{"-", true, true}, // none
		{"http://chat.example", true, false},
		{"https://chat.example", true, true}, // a proxy may have ended the TLS
		{"HTTPS://Chat.EXAMPLE", true, true},
		{origin: ""},
		{origin: "null"},
		{origin: "http://evil.example"},
		{origin: "https://evil.example"},
		{origin: "http://chat.example.evil.example"},
		{origin: "http://evilchat.example"},
		{origin: "http://sub.chat.example"},
		{origin: "http://example"},
		{origin: "http://chat.exampl"},
		{origin: "http://chat.example:8080"},
		{origin: "http://chat.example:80"},
		{origin: "https://chat.example:443"},
		{origin: "http://chat.example:"},
		{origin: "http://chat.example."},
		{origin: "http://user@chat.example"},
		{origin: "http://user:pw@chat.example"},
		{origin: "http://chat.example@evil.example"},
		{origin: `http://chat.example\@evil.example`},
		{origin: "http://chat.example/"},
		{origin: "http://chat.example/path"},
		{origin: "http://chat.example?q"},
		{origin: "http://chat.example#f"},
		{origin: "http://evil.example#http://chat.example"},
		{origin: "http://evil.example/http://chat.example"},
		{origin: "http://chat.example http://evil.example"},
		{origin: "http://evil.example, http://chat.example"},
		{origin: "http://chat%2Eexample"},
		{origin: "http://chat.example%00.evil.example"},
		{origin: "http:chat.example"},
		{origin: "http:///chat.example"},
		{origin: "http://"},
		{origin: "//chat.example"},
		{origin: "chat.example"},
		{origin: "file://"},
		{origin: "file://chat.example"},
		{origin: "ftp://chat.example"},
		{origin: "ws://chat.example"},
		{origin: "chrome-extension://chat.example"},
		{origin: "http://[chat.example]"},
		{origin: "http://*"},
		{origin: "*"},
		{origin: "http://chat.example\r\nOrigin: http://chat.example"},
		{origin: "http://chat.example\r\nOrigin: http://evil.example"},
		{origin: "http://evil.example\r\nOrigin: http://chat.example"},
		{origin: "null\r\nOrigin: null"},
	} {
		for _, srv := range []*httptest.Server{plain, withTLS} {
			allowed := test.plain
			if srv == withTLS {
				allowed = test.tls
			}
			headers := []string{"Host: chat.example", "Origin: " + test.origin}
			if test.origin == "-" {
				headers = headers[:1]
			}
			calls.Store(0)
			p := knock(t, srv, upgradeRequest("/", headers...))
			if allowed {
				if p.res.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("origin %q, TLS %t: refused with %d", test.origin, srv == withTLS, p.res.StatusCode)
				}
				until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
			} else {
				wantRefusal(t, p, http.StatusForbidden, "origin not allowed")
				if p.res.StatusCode == http.StatusSwitchingProtocols || calls.Load() != 0 {
					t.Errorf("origin %q, TLS %t: after %d calls of the application", test.origin, srv == withTLS, calls.Load())
				}
			}
			p.Close()
		}
	}
	nothingLeft(t, hub)
}

func TestOriginOfThePort(t *testing.T) {
	hub := wsroom.New()
	srv := serve(t, hub)
	for origin, status := range map[string]int{
		"http://chat.example:8080": 101, "http://chat.example": 403, "http://chat.example:8081": 403, "http://[::1]:8080": 403,
	} {
		if p := knock(t, srv, upgradeRequest("/", "Host: chat.example:8080", "Origin: "+origin)); p.res.StatusCode != status {
			t.Errorf("%s: got %d, want %d", origin, p.res.StatusCode, status)
		}
	}
	if p := knock(t, srv, upgradeRequest("/", "Host: [::1]:8080", "Origin: http://[::1]:8080")); p.res.StatusCode != 101 {
		t.Errorf("IPv6: got %d", p.res.StatusCode)
	}
}

func TestWithOriginsAllowsWhatItsPatternsSay(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{"app.example", []string{"http://app.example", "https://app.example", "https://APP.example"},
			[]string{"https://app.example:8443", "https://x.app.example", "https://app.example.evil", "https://user@app.example", "https://app.example/", "null"}},
		{"App.Example:8443", []string{"https://app.example:8443", "http://app.example:8443"}, []string{"https://app.example"}},
		{"https://app.example", []string{"https://app.example", "HTTPS://app.example"}, []string{"http://app.example", "wss://app.example"}},
		{"https://*.example.com", []string{"https://a.example.com", "https://a.b.example.com"},
			[]string{"https://example.com", "http://a.example.com", "https://a.example.com:8443", "https://evil.example/.example.com", "https://evil.example#.example.com", "https://evil.example?.example.com", "https://evil@a.example.com"}},
		{"*.example.com", []string{"https://a.example.com", "http://a.example.com"}, []string{"https://example.com", "https://a.example.com.evil"}},
		{"http://localhost:*", []string{"http://localhost:3000", "http://localhost:80"}, []string{"http://localhost", "https://localhost:3000", "http://localhost.evil:3000"}},
		{"http://[::1]:3000", []string{"http://[::1]:3000"}, []string{"http://[::2]:3000", "http://[::1]"}},
		{"capacitor://localhost", []string{"capacitor://localhost"}, []string{"http://localhost", "https://localhost"}},
	} {
		hub := wsroom.New(wsroom.WithOrigins(test.pattern))
		srv := serve(t, hub)
		try := func(origin string, status int) {
			t.Helper()
			p := knock(t, srv, upgradeRequest("/", "Host: chat.example", "Origin: "+origin))
			if p.res.StatusCode != status {
				t.Errorf("pattern %q, origin %q: got %d, want %d", test.pattern, origin, p.res.StatusCode, status)
			}
			p.Close()
		}
		for _, origin := range test.yes {
			try(origin, 101)
		}
		for _, origin := range test.no {
			try(origin, 403)
		}
		try("http://chat.example", 101) // its own
		nothingLeft(t, hub)
	}
}

func TestPatternsThatAllowAllOrNothingAreRefused(t *testing.T) {
	refuses := func(opt wsroom.Option, want ...string) {
		t.Helper()
		defer func() {
			t.Helper()
			v := recover()
			err, _ := v.(error)
			if err == nil {
				t.Errorf("want a panic about %q, got %v", want, v)
				return
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		}()
		wsroom.New(opt)
	}
	for _, p := range []string{
		"*", "https://*", "http*://*", "*://*", "*.*", "*:*", "**", "?*", "https://*.*", "https://*:*", "",
		"a b", "https://x/y", "https://x/", "x/y", "user@x", "://x", "https://", "[", "a[", `x\`, "https://[a-",
	} {
		refuses(wsroom.WithOrigins("fine.example", p), "WithOrigins", fmt.Sprintf("%q", p))
		refuses(wsroom.WithHosts("fine.example", p), "WithHosts")
	}
	refuses(wsroom.WithOrigins("*", "a b", "["), `"*"`, `"a b"`, `"["`) // every mistake
	refuses(wsroom.WithHosts("https://chat.example"), "WithHosts", "scheme")
}

func TestWithHostsStopsDNSRebinding(t *testing.T) {
	var calls atomic.Int32
	opts := append(callbackCount(&calls), wsroom.WithHosts("chat.example", "*.chat.example:8080", "[::1]"))
	strict := wsroom.New(opts...)
	anyOrigin := wsroom.New(append(opts, wsroom.WithInsecureAnyOrigin())...)
	for _, hub := range []*wsroom.Hub{strict, anyOrigin} {
		srv := serve(t, hub)
		for host, allowed := range map[string]bool{
			"chat.example": true, "CHAT.example": true, "chat.example:8080": true, "chat.example:1": true,
			"a.chat.example:8080": true, "[::1]": true, "[::1]:8080": true,
			"a.chat.example": false, "a.chat.example:80": false, "evil.example": false, "evil.example:8080": false,
			"chat.example.evil.example": false, "evilchat.example": false, "": false, "[::2]": false, "127.0.0.1": false,
		} {
			for _, origin := range []string{"Origin: http://" + host, "Origin"} {
				calls.Store(0)
				p := knock(t, srv, upgradeRequest("/", "Host: "+host, origin))
				if allowed {
					if p.res.StatusCode != 101 {
						t.Errorf("host %q, %s: refused with %d", host, origin, p.res.StatusCode)
					}
					until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
				} else {
					wantRefusal(t, p, http.StatusForbidden, "host not allowed")
					if calls.Load() != 0 {
						t.Errorf("host %q: after %d calls of the application", host, calls.Load())
					}
				}
				p.Close()
			}
		}
		nothingLeft(t, hub)
	}
}

func TestWithInsecureAnyOriginAllowsAnyOrigin(t *testing.T) {
	hub := wsroom.New(wsroom.WithInsecureAnyOrigin())
	srv := serve(t, hub)
	for _, origin := range []string{"null", "https://evil.example", "x"} {
		if p := knock(t, srv, upgradeRequest("/", "Origin: "+origin)); p.res.StatusCode != 101 {
			t.Errorf("origin %q: got %d", origin, p.res.StatusCode)
		}
	}
}
