package wsroomtest

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// patience is how long a client waits by default.
const patience = 10 * time.Second

// Option is an option of [Dial], [DialN] and [Refused]. A nil Option is skipped.
type Option func(*config)

type config struct {
	dial       websocket.DialOptions
	roots      *x509.CertPool // nil: the system's certificates
	ctx        context.Context
	remoteAddr string
	name       string
	patience   time.Duration
	cursor     *string // nil: the client doesn't speak wsroom.v1
}

func newConfig(path string, opts []Option) *config {
	c := &config{ctx: context.Background(), remoteAddr: "192.0.2.1:1234", name: path, patience: patience}
	c.dial.HTTPHeader = http.Header{}
	for _, opt := range opts {
		if opt != nil {
			opt(c)
		}
	}
	return c
}

// WithName names the client in failures. The default is its path, followed by its number if [DialN] made
// it.
func WithName(name string) Option {
	return func(c *config) { c.name = name }
}

// WithTimeout bounds each wait of the client: for the handshake, for a message, for the end. It costs time
// only when a test fails. The default is 10 s. In a bubble of testing/synctest it is fake time.
func WithTimeout(d time.Duration) Option {
	return func(c *config) { c.patience = d }
}

// WithHeader adds a header to the request.
func WithHeader(key, value string) Option {
	return func(c *config) { c.dial.HTTPHeader.Add(key, value) }
}

// WithCookies adds cookies to the request, such as those from a login's response.
func WithCookies(cookies ...*http.Cookie) Option {
	return func(c *config) {
		for _, cookie := range cookies {
			c.dial.HTTPHeader.Add("Cookie", (&http.Cookie{Name: cookie.Name, Value: cookie.Value, Quoted: cookie.Quoted}).String())
		}
	}
}

// WithOrigin sends the request as a browser does from a page of this origin, such as "https://app.example".
// By default the request has no origin, like requests of programs that aren't browsers.
func WithOrigin(origin string) Option {
	return func(c *config) { c.dial.HTTPHeader.Set("Origin", origin) }
}

// WithHost sets the host that the request names. The default is example.com, or the URL's host.
func WithHost(host string) Option {
	return func(c *config) { c.dial.Host = host }
}

// WithSubprotocols offers subprotocols, in order of preference.
func WithSubprotocols(names ...string) Option {
	return func(c *config) { c.dial.Subprotocols = names }
}

// WithCompression offers permessage-deflate without context takeover. If the server accepts it, the client
// compresses what it sends.
func WithCompression() Option {
	return func(c *config) {
		c.dial.CompressionMode = websocket.CompressionNoContextTakeover
		c.dial.CompressionThreshold = 1
	}
}

// WithCertificate trusts this certificate of a server that is dialed by an https URL, such as that of
// httptest's Server.Certificate.
func WithCertificate(cert *x509.Certificate) Option {
	return func(c *config) {
		c.roots = x509.NewCertPool()
		c.roots.AddCert(cert)
	}
}

// WithContext derives the request's context from ctx, as if middleware had put its values there. It has no
// effect on a server that is dialed by URL.
func WithContext(ctx context.Context) Option {
	return func(c *config) { c.ctx = ctx }
}

// WithRemoteAddr sets the request's RemoteAddr, such as "203.0.113.7:4711". The default is
// "192.0.2.1:1234". It has no effect on a server that is dialed by URL.
func WithRemoteAddr(addr string) Option {
	return func(c *config) { c.remoteAddr = addr }
}
