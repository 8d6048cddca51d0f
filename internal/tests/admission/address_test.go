package admission_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// trustedProxies are those of the tests.
var trustedProxies = []string{"127.0.0.0/8", "10.0.0.0/8", "192.0.2.7", "::1", "2001:db8:aa::/48", "::ffff:172.16.0.0/108"}

// addressFinder returns a function that tells which RemoteAddr the application sees of a request.
func addressFinder(opts ...wsroom.Option) func(t *testing.T, peer string, forwarded ...string) string {
	var seen string
	hub := wsroom.New(append(opts, wsroom.WithRoom(func(r *http.Request) (string, error) {
		seen = r.RemoteAddr
		return "", errors.New("that's all")
	}))...)
	return func(t *testing.T, peer string, forwarded ...string) string {
		t.Helper()
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(kit.UpgradeRequest("/"))))
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = peer
		r.Header["X-Forwarded-For"] = forwarded
		seen = "nothing"
		w := httptest.NewRecorder()
		hub.ServeHTTP(&kit.NoHijack{ResponseWriter: w}, r)
		if w.Code != http.StatusBadRequest || r.RemoteAddr != peer {
			t.Fatalf("status %d; the caller's request has the address %q", w.Code, r.RemoteAddr)
		}
		return seen
	}
}

// The client's address comes from X-Forwarded-For only as far as trusted proxies wrote it.
func TestForwardedForCountsOnlyFromTrustedProxies(t *testing.T) {
	find := addressFinder(wsroom.WithTrustedProxies(trustedProxies...))
	for _, test := range []struct {
		what, peer string
		forwarded  []string
		want       string // "": the peer, as it is
	}{
		{"a proxy", "10.1.2.3:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"no proxy", "203.0.113.1:99", []string{"203.0.113.5"}, ""},
		{"next to a prefix", "11.0.0.1:99", []string{"203.0.113.5"}, ""},
		{"next to an address", "192.0.2.8:99", []string{"203.0.113.5"}, ""},
		{"a single address", "192.0.2.7:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"IPv6 proxy", "[2001:db8:aa:1::2]:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"IPv6 loopback with a zone", "[::1%lo]:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"mapped proxy", "[::ffff:10.1.2.3]:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"proxy of a mapped prefix", "172.16.9.9:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		{"next to a mapped prefix", "172.32.0.1:99", []string{"203.0.113.5"}, ""},
		{"a Unix socket", "@", []string{"203.0.113.5"}, ""},
		{"an unnamed Unix socket", "", []string{"203.0.113.5"}, ""},
		{"no header", "10.1.2.3:99", nil, ""},
		{"forged to the left", "10.1.2.3:99", []string{"198.51.100.1, 203.0.113.5"}, "203.0.113.5:0"},
		{"forged with a proxy's address", "10.1.2.3:99", []string{"10.9.9.9, 203.0.113.5"}, "203.0.113.5:0"},
		{"forged in a line of its own", "10.1.2.3:99", []string{"198.51.100.1", "203.0.113.5"}, "203.0.113.5:0"},
		{"through two proxies", "10.1.2.3:99", []string{"198.51.100.1, 203.0.113.5, 10.4.4.4"}, "203.0.113.5:0"},
		{"through two proxies, in two lines", "10.1.2.3:99", []string{"198.51.100.1, 203.0.113.5", "10.4.4.4"}, "203.0.113.5:0"},
		{"proxies all the way", "10.1.2.3:99", []string{"10.5.5.5, 10.4.4.4"}, "10.5.5.5:0"},
		{"garbage at the right", "10.1.2.3:99", []string{"203.0.113.5, unknown"}, ""},
		{"garbage behind a proxy", "10.1.2.3:99", []string{"203.0.113.5, garbage, 10.4.4.4"}, "10.4.4.4:0"},
		{"garbage in front", "10.1.2.3:99", []string{"garbage, 203.0.113.5"}, "203.0.113.5:0"},
		{"empty", "10.1.2.3:99", []string{""}, ""},
		{"an empty entry", "10.1.2.3:99", []string{"203.0.113.5,"}, ""},
		{"an empty entry behind a proxy", "10.1.2.3:99", []string{"203.0.113.5,, 10.4.4.4"}, "10.4.4.4:0"},
		{"an empty line", "10.1.2.3:99", []string{"203.0.113.5", ""}, ""},
		{"over-long", "10.1.2.3:99", []string{"203.0.113.5, fe80::1%" + strings.Repeat("x", 1000)}, ""},
		{"over-long behind a proxy", "10.1.2.3:99", []string{strings.Repeat("1", 1<<16) + ", 10.4.4.4"}, "10.4.4.4:0"},
		{"no spaces", "10.1.2.3:99", []string{"198.51.100.1,203.0.113.5,10.4.4.4"}, "203.0.113.5:0"},
		{"tabs", "10.1.2.3:99", []string{"198.51.100.1\t,\t203.0.113.5\t"}, "203.0.113.5:0"},
		{"a port", "10.1.2.3:99", []string{"203.0.113.5:4711"}, "203.0.113.5:0"},
		{"an IPv6 client", "10.1.2.3:99", []string{"2001:db8::5"}, "[2001:db8::5]:0"},
		{"brackets", "10.1.2.3:99", []string{"[2001:db8::5]"}, "[2001:db8::5]:0"},
		{"brackets and a port", "10.1.2.3:99", []string{"[2001:db8::5]:4711"}, "[2001:db8::5]:0"},
		{"half a bracket", "10.1.2.3:99", []string{"[2001:db8::5"}, ""},
		{"a zone", "10.1.2.3:99", []string{"fe80::5%eth0"}, "[fe80::5]:0"},
		{"a mapped client", "10.1.2.3:99", []string{"::ffff:203.0.113.5"}, "203.0.113.5:0"},
		{"a mapped proxy behind it", "10.1.2.3:99", []string{"203.0.113.5, ::ffff:10.4.4.4"}, "203.0.113.5:0"},
		{"a name", "10.1.2.3:99", []string{"localhost"}, ""},
		{"a number", "10.1.2.3:99", []string{"3405803781"}, ""},
		{"a prefix", "10.1.2.3:99", []string{"203.0.113.0/24"}, ""},
		{"leading zeros", "10.1.2.3:99", []string{"203.0.113.005"}, ""},
	} {
		want := test.want
		if want == "" {
			want = test.peer
		}
		if got := find(t, test.peer, test.forwarded...); got != want {
			t.Errorf("%s: got %q, want %q", test.what, got, want)
		}
	}
	if got := addressFinder()(t, "127.0.0.1:99", "203.0.113.5"); got != "127.0.0.1:99" {
		t.Errorf("without trusted proxies: got %q", got)
	}
}

// FuzzForwardedFor has proxies forward anything. The client's address is the peer's or stands in the
// header with none but proxies to its right, and what a client sends never outdoes what a proxy adds.
func FuzzForwardedFor(f *testing.F) {
	for _, forwarded := range []string{
		"", ",", "203.0.113.5", "10.4.4.4", "203.0.113.5, 10.4.4.4", "[2001:db8::5]:1,\t::ffff:10.4.4.4",
		"fe80::1%eth0", "[::1%x]:80", "[::1%x]:]:8080", "[::1%[x::]:8080", "unknown", "1.2.3.4:65536", "[1.2.3.4]", "::ffff:1.2.3.4%x", "a\nb, 127.0.0.1",
	} {
		f.Add("10.1.2.3:99", forwarded, "10.4.4.4")
		f.Add("203.0.113.1:99", "127.0.0.1", forwarded)
		f.Add(forwarded, forwarded, forwarded)
	}
	find := addressFinder(wsroom.WithTrustedProxies(trustedProxies...))
	trusts := func(s string) bool {
		addr, err := plainAddr(s)
		for _, p := range trustedProxies {
			p = strings.Replace(p, "::ffff:172.16.0.0/108", "172.16.0.0/12", 1)
			if !strings.Contains(p, "/") {
				p = netip.PrefixFrom(netip.MustParseAddr(p), netip.MustParseAddr(p).BitLen()).String()
			}
			if err == nil && netip.MustParsePrefix(p).Contains(addr) {
				return true
			}
		}
		return false
	}
	f.Fuzz(func(t *testing.T, peer, first, second string) {
		got := find(t, peer, first, second)
		if !trusts(peer) {
			if got != peer {
				t.Errorf("the peer %q isn't trusted and became %q", peer, got)
			}
			return
		}
		entries := strings.Split(first+","+second, ",")
		ok := got == peer
		for i := len(entries) - 1; i >= 0 && !ok; i-- {
			addr, err := plainAddr(strings.TrimSpace(entries[i]))
			ok = err == nil && got == net.JoinHostPort(addr.String(), "0")
			if !trusts(strings.TrimSpace(entries[i])) {
				break
			}
		}
		if !ok {
			t.Errorf("peer %q, forwarded for %q and %q: got %q", peer, first, second, got)
		}
		const client = "203.0.113.99"
		if got := find(t, peer, first, second, client); got != client+":0" {
			t.Errorf("forged %q and %q outdo the proxy's own entry: %q", first, second, got)
		}
		if got := find(t, peer, first+", "+second+", "+client+", 10.4.4.4"); got != client+":0" {
			t.Errorf("forged %q and %q outdo two proxies' own entries: %q", first, second, got)
		}
	})
}

// plainAddr reads an address by trial.
func plainAddr(s string) (addr netip.Addr, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !validPort(port) || strings.HasPrefix(s, "[") != strings.Contains(host, ":") {
		host = s
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			host = s[1 : len(s)-1]
		}
	}
	switch addr, err = netip.ParseAddr(host); {
	case len(s) > 80:
		err = errors.New("too long")
	case strings.ContainsAny(addr.Zone(), "[]"):
		err = errors.New("a bracket in the zone")
	}
	return addr.WithZone("").Unmap(), err
}

func validPort(port string) bool {
	_, err := netip.ParseAddrPort("1.2.3.4:" + port)
	return err == nil
}

func TestTrustedProxiesMustBePrefixes(t *testing.T) {
	for _, s := range []string{
		"", "proxy.example", "10.0.0.0/33", "10.0.0/8", "10.0.0.1:80", "::/129", "fe80::%eth0/64", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "*",
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, fmt.Sprintf("wsroom: WithTrustedProxies: %q: ", s)) ||
					strings.HasSuffix(s, "/0") && !strings.Contains(text, "any client could choose its address") {
					t.Errorf("%q: %s", s, text)
				}
			}()
			wsroom.New(wsroom.WithTrustedProxies("10.0.0.0/8", s))
		}()
	}
}

// All of the application sees one address, that of the client.
func TestApplicationSeesTheClientsAddress(t *testing.T) {
	for _, test := range []struct{ proxies, want string }{{"127.0.0.1", "203.0.113.5:0"}, {"10.0.0.0/8", "127.0.0.1:"}} {
		seen := make(chan string, 10)
		see := func(r *http.Request) { seen <- r.RemoteAddr }
		hub := wsroom.New(wsroom.WithTrustedProxies(test.proxies),
			wsroom.WithMaxConnsPer(func(r *http.Request) string { see(r); return wsroom.ByAddr(r) }, 1),
			wsroom.WithRoom(func(r *http.Request) (string, error) { see(r); return "a", nil }),
			wsroom.WithAuthorize(func(r *http.Request, _ string) error { see(r); return nil }),
			wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { see(r); seen <- c.RemoteAddr(); return nil }))
		srv := kit.Serve(t, hub)
		forwarded := func(addrs string) wsroomtest.Option { return wsroomtest.WithHeader("X-Forwarded-For", addrs) }
		kit.Dial(t, srv, "/", forwarded("198.51.100.1, 203.0.113.5"))
		for range 5 {
			if got := kit.Await(t, seen, "an address"); !strings.HasPrefix(got, test.want) {
				t.Errorf("behind %s: got %q, want %q", test.proxies, got, test.want)
			}
		}
		// Another forged address doesn't make another key; another client of the proxy is one.
		wsroomtest.Refused(t, nil, srv.URL, http.StatusTooManyRequests, forwarded("198.51.100.2, 203.0.113.5"))
		if test.proxies == "127.0.0.1" {
			kit.Dial(t, srv, "/", forwarded("203.0.113.5, 203.0.113.6"))
		} else {
			wsroomtest.Refused(t, nil, srv.URL, http.StatusTooManyRequests, forwarded("203.0.113.6"))
		}
	}
}

func TestByAddrGroupsAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"203.0.113.5:99":                     "203.0.113.5",
		"203.0.113.5:0":                      "203.0.113.5",
		"203.0.113.5":                        "203.0.113.5",
		"[::ffff:203.0.113.5]:99":            "203.0.113.5",
		"[2001:db8:1:2::5]:99":               "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff:ffff:ffff:1]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:3::5]:99":               "2001:db8:1:3::/64",
		"[fe80::1%eth0]:99":                  "fe80::/64",
		"::1":                                "::/64",
		"@":                                  "@",
		"":                                   "",
		"pipe":                               "pipe",
	} {
		if got := wsroom.ByAddr(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%q: got %q, want %q", remote, got, want)
		}
	}
}
