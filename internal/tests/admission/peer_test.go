package admission_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// get makes a request that is no upgrade.
func get(t testing.TB, srv *httptest.Server, target string) (status int, body string) {
	t.Helper()
	p := kit.Request(t, srv, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
	return p.Res.StatusCode, p.Body
}

// wantRefusal checks that the answer isn't, and doesn't look like, an upgrade.
func wantRefusal(t testing.TB, p *kit.Peer, status int, inBody ...string) {
	t.Helper()
	if p.Res.StatusCode != status {
		t.Errorf("got status %d %q, want %d", p.Res.StatusCode, kit.Short(p.Body), status)
	}
	for _, want := range inBody {
		if !strings.Contains(p.Body, want) {
			t.Errorf("status %d: the body %q lacks %q", status, p.Body, want)
		}
	}
	for _, key := range []string{"Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Upgrade"} {
		if key == "Upgrade" && status == http.StatusUpgradeRequired {
			continue
		}
		if v := p.Res.Header.Values(key); len(v) > 0 {
			t.Errorf("status %d: the refusal has %s: %q", status, key, v)
		}
	}
	if strings.EqualFold(p.Res.Header.Get("Connection"), "upgrade") && status != http.StatusUpgradeRequired {
		t.Errorf("status %d: the refusal has Connection: Upgrade", status)
	}
}

func wantRetryAfter(t testing.TB, p *kit.Peer) {
	t.Helper()
	var seconds int
	if _, err := fmt.Sscan(p.Res.Header.Get("Retry-After"), &seconds); err != nil || seconds <= 0 {
		t.Errorf("Retry-After is %q", p.Res.Header.Get("Retry-After"))
	}
}
