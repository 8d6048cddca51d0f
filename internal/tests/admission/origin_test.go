package admission_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestOnlyTheSameOriginByDefault(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(kit.CallbackCount(&calls)...)
	plain := kit.Serve(t, hub)
	withTLS := kit.ServeConfigured(t, hub, (*httptest.Server).StartTLS, hub)
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
		{"http://chat.example:80", true, false}, // the schemes' own ports
		{"https://chat.example:443", true, true},
		{"http://chat.example/", true, false}, // of x/net/websocket
		{"https://chat.example/", true, true},
		{"ws://chat.example", true, false}, // of clients that name the URL they dial, such as Starscream
		{"wss://chat.example", true, true},
		{"wss://chat.example:443/", true, true},
		{origin: "http://chat.example:443"},
		{origin: "https://chat.example:80"},
		{origin: "wss://chat.example:80"},
		{origin: "ws://chat.example:443"},
		{origin: "https://chat.example:0443"},
		{origin: "https://chat.example:443:443"},
		{origin: "https://chat.example.:443"},
		{origin: "https://chat.example:8443"},
		{origin: "https://evil.example:443"},
		{origin: "wss://evil.example"},
		{origin: "wss://evil.example/"},
		{origin: "wss://user@chat.example"},
		{origin: "https://:443"},
		{origin: "http://chat.example:"},
		{origin: "http://chat.example."},
		{origin: "http://user@chat.example"},
		{origin: "http://user:pw@chat.example"},
		{origin: "http://chat.example@evil.example"},
		{origin: `http://chat.example\@evil.example`},
		{origin: "http://chat.example//"},
		{origin: "http://chat.example/."},
		{origin: "http://chat.example/?"},
		{origin: "http://chat.example/#"},
		{origin: `http://chat.example\`},
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
		{origin: "file:///"},
		{origin: "app://chat.example"},
		{origin: "httpss://chat.example"},
		{origin: "https:chat.example"},
		{origin: "https:/chat.example"},
		{origin: "javascript://chat.example"},
		{origin: "blob:https://chat.example"},
		{origin: "http://chat.\u0435xample"}, // a Cyrillic letter
		{origin: "http://chat\u3002example"},
		{origin: "http://chat.example\u00ad"},
		{origin: "http://[::1]"},
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
			p := kit.Request(t, srv, kit.UpgradeRequest("/", headers...))
			if allowed {
				if p.Res.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("origin %q, TLS %t: refused with %d", test.origin, srv == withTLS, p.Res.StatusCode)
				}
				kit.Until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
			} else {
				wantRefusal(t, p, http.StatusForbidden, "origin not allowed")
				if p.Res.StatusCode == http.StatusSwitchingProtocols || calls.Load() != 0 {
					t.Errorf("origin %q, TLS %t: after %d calls of the application", test.origin, srv == withTLS, calls.Load())
				}
			}
			p.Close()
		}
	}
	kit.NothingLeft(t, hub)
}

// The schemes' own ports may be named by either side, or by none.
func TestOriginOfThePort(t *testing.T) {
	hub := wsroom.New()
	srv := kit.Serve(t, hub)
	for _, test := range []struct {
		host    string
		yes, no []string
	}{
		{"chat.example:8080", []string{"http://chat.example:8080", "https://chat.example:8080", "ws://chat.example:8080/"},
			[]string{"http://chat.example", "http://chat.example:8081", "http://[::1]:8080", "http://chat.example:80", "http://chat.example:08080"}},
		{"chat.example:443", []string{"https://chat.example", "https://chat.example:443", "wss://chat.example/", "HTTPS://CHAT.example", "http://chat.example:443"},
			[]string{"http://chat.example", "https://chat.example:80", "https://evil.example", "https://chat.example:4430", "https://chat.example:44"}},
		{"chat.example:80", []string{"http://chat.example", "http://chat.example:80", "ws://chat.example", "https://chat.example:80"},
			[]string{"https://chat.example", "http://chat.example:443", "wss://chat.example"}},
		{"[::1]:8080", []string{"http://[::1]:8080"}, []string{"http://[::1]", "http://[::]:8080", "http://::1:8080", "http://[::1]8080", "http://[0:0:0:0:0:0:0:1]:8080"}},
		{"[::1]:443", []string{"https://[::1]", "wss://[::1]:443"}, []string{"https://[::1", "https://::1", "https://[::1]:80", "https://[::1]:"}},
		{"[::80]", []string{"http://[::80]", "http://[::80]:80"}, []string{"http://[:]", "http://["}},
		{"", nil, []string{"http://:80", "https://:443", "http://", "https:///", "://", "null"}},
		{":80", nil, []string{"http://:80", "http://", "https://:443"}},
	} {
		for origins, status := range map[*[]string]int{&test.yes: 101, &test.no: 403} {
			for _, origin := range *origins {
				p := kit.Request(t, srv, kit.UpgradeRequest("/", "Host: "+test.host, "Origin: "+origin))
				if p.Res.StatusCode != status {
					t.Errorf("host %q, origin %q: got %d, want %d", test.host, origin, p.Res.StatusCode, status)
				}
				p.Close()
			}
		}
	}
	kit.NothingLeft(t, hub)
}

func TestWithOriginsAllowsWhatItsPatternsSay(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{"app.example", []string{"http://app.example", "https://app.example", "https://APP.example", "https://app.example/", "https://app.example:443", "wss://app.example"},
			[]string{"https://app.example:8443", "https://x.app.example", "https://app.example.evil", "https://user@app.example", "https://app.example/x", "https://app.example:80", "null"}},
		{"app.example:443", []string{"https://app.example", "https://app.example:443", "http://app.example:443"}, []string{"http://app.example", "https://app.example:80"}},
		{"https://app.example:443", []string{"https://app.example", "wss://app.example:443"}, []string{"http://app.example:443", "https://app.example:8443"}},
		{"wss://app.example", []string{"https://app.example", "wss://app.example"}, []string{"http://app.example", "ws://app.example"}},
		{"App.Example:8443", []string{"https://app.example:8443", "http://app.example:8443"}, []string{"https://app.example"}},
		{"https://app.example", []string{"https://app.example", "HTTPS://app.example", "wss://app.example"}, []string{"http://app.example", "ws://app.example", "file://", "https://"}},
		{"https://*.example.com", []string{"https://a.example.com", "https://a.b.example.com"},
			[]string{"https://example.com", "http://a.example.com", "https://a.example.com:8443", "https://evil.example/.example.com", "https://evil.example#.example.com", "https://evil.example?.example.com", "https://evil@a.example.com"}},
		{"*.example.com", []string{"https://a.example.com", "http://a.example.com"}, []string{"https://example.com", "https://a.example.com.evil"}},
		{"http://localhost:*", []string{"http://localhost:3000", "http://localhost:80"}, []string{"http://localhost", "https://localhost:3000", "http://localhost.evil:3000"}},
		{"http://[::1]:3000", []string{"http://[::1]:3000"}, []string{"http://[::2]:3000", "http://[::1]"}},
		{"capacitor://localhost", []string{"capacitor://localhost", "Capacitor://localhost/"}, []string{"http://localhost", "https://localhost", "capacitor://localhost:1", "capacitor://localhos", "ionic://localhost"}},
		{"tauri://localhost", []string{"tauri://localhost"}, []string{"https://tauri.localhost", "tauri://localhost.evil"}},
		{"file://", []string{"file://", "file:///"}, []string{"null", "file:////", "file://evil.example", "http://", "https://evil.example", "files://"}},
		{"vscode-webview://*", []string{"vscode-webview://1a2b3c", "vscode-webview://x/"}, []string{"vscode-webview://", "https://1a2b3c", "vscode-webviews://x", "vscode-webview://x/y", "x-vscode-webview://x"}},
	} {
		hub := wsroom.New(wsroom.WithOrigins(test.pattern))
		srv := kit.Serve(t, hub)
		try := func(origin string, status int) {
			t.Helper()
			p := kit.Request(t, srv, kit.UpgradeRequest("/", "Host: chat.example", "Origin: "+origin))
			if p.Res.StatusCode != status {
				t.Errorf("pattern %q, origin %q: got %d, want %d", test.pattern, origin, p.Res.StatusCode, status)
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
		kit.NothingLeft(t, hub)
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
		"*", "https://*", "http*://*", "wss://*", "ftp://*", "HTTPS://*", "*:443", "*:8443", "https://*:443", "*://", "f*://*", "?ile://", "*://*", "*.*", "*:*", "**", "?*", "https://*.*", "https://*:*", "",
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
	opts := append(kit.CallbackCount(&calls), wsroom.WithHosts("chat.example", "*.chat.example:8080", "[::1]"))
	strict := wsroom.New(opts...)
	anyOrigin := wsroom.New(append(opts, wsroom.WithInsecureAnyOrigin())...)
	for _, hub := range []*wsroom.Hub{strict, anyOrigin} {
		srv := kit.Serve(t, hub)
		for host, allowed := range map[string]bool{
			"chat.example": true, "CHAT.example": true, "chat.example:8080": true, "chat.example:1": true,
			"a.chat.example:8080": true, "[::1]": true, "[::1]:8080": true,
			"a.chat.example": false, "a.chat.example:80": false, "evil.example": false, "evil.example:8080": false,
			"chat.example.evil.example": false, "evilchat.example": false, "": false, "[::2]": false, "127.0.0.1": false,
		} {
			for _, origin := range []string{"Origin: http://" + host, "Origin"} {
				calls.Store(0)
				p := kit.Request(t, srv, kit.UpgradeRequest("/", "Host: "+host, origin))
				if allowed {
					if p.Res.StatusCode != 101 {
						t.Errorf("host %q, %s: refused with %d", host, origin, p.Res.StatusCode)
					}
					kit.Until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
				} else {
					wantRefusal(t, p, http.StatusForbidden, "host not allowed")
					if calls.Load() != 0 {
						t.Errorf("host %q: after %d calls of the application", host, calls.Load())
					}
				}
				p.Close()
			}
		}
		kit.NothingLeft(t, hub)
	}
}

func TestWithInsecureAnyOriginAllowsAnyOrigin(t *testing.T) {
	hub := wsroom.New(wsroom.WithInsecureAnyOrigin())
	srv := kit.Serve(t, hub)
	for _, origin := range []string{"null", "https://evil.example", "x"} {
		if p := kit.Request(t, srv, kit.UpgradeRequest("/", "Origin: "+origin)); p.Res.StatusCode != 101 {
			t.Errorf("origin %q: got %d", origin, p.Res.StatusCode)
		}
	}
}
