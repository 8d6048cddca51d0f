package wsroom

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/request"
)

// Option configures a Hub. Options are given to New; of two that set the same thing the later one
// wins, and a nil Option is skipped.
type Option func(*config) error

// Overflow says what happens to a message for a connection whose send queue is full.
type Overflow int

const (
	// CloseSlow ends the connection with ErrSlow and close code 1013. It is the default.
	CloseSlow Overflow = iota
	// DropOldest drops what has waited longest to make room for the new message.
	DropOldest
	// DropNewest drops the new message.
	DropNewest
)

// BadJSON says what becomes of a connection whose message doesn't decode.
type BadJSON int

const (
	// CloseOnBad ends the connection with close code 1007. It is the default.
	CloseOnBad BadJSON = iota
	// KeepOpen hands the callback the *DecodeError and goes on.
	KeepOpen
)

// RateLimitAction says what happens to a client over WithRateLimit or WithByteRateLimit.
type RateLimitAction int

const (
	// SlowDown reads no further until the rate allows, so that TCP pushes back. It is the default.
	SlowDown RateLimitAction = iota
	// Disconnect ends the connection with ErrRateLimited and close code 1008.
	Disconnect
)

// config is what options set. It doesn't change after New.
type config struct {
	room         RoomFunc
	authorize    func(r *http.Request, room string) error
	site         request.Site // which hosts and origins may come
	subprotocols []string
	proxies      request.Proxies // trusted
	handshake    time.Duration
	rejectMode   RejectMode

	maxMessage    int64
	limits        frame.Limits
	outboundQueue outbound.Limits
	onDrop        func(c *Conn, messages int)
	heartbeat     time.Duration
	pongTimeout   time.Duration
	deflateFrom   int // bytes; negative: no compression
	messageRate   bucket.Rate
	byteRate      bucket.Rate
	rateAction    RateLimitAction
	overheadRate  bucket.Rate // of frames that carry nothing
	badJSON       BadJSON

	maxConns, maxRooms, maxMembers int // 0: no limit
	connKey                        func(*http.Request) string
	maxPerKey                      int
	drain                          time.Duration
	shutdownCode                   websocket.StatusCode

	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	logger    *slog.Logger
	observer  Observer
	name      string

	broker      Broker
	outage      Outage
	outageTime  time.Duration
	outageBytes int64
	onGap       func(room string, err error)

	identity      func(*http.Request) string
	presence      PresenceStore
	grace         time.Duration
	onMemberJoin  func(room string, m Member)
	onMemberLeave func(room string, m Member)

	callbacks
}

func newConfig(opts []Option) (*config, error) {
	c := &config{
		room:          ByPath,
		handshake:     10 * time.Second,
		maxMessage:    64 << 10,
		limits:        frame.Limits{Message: 10 * time.Second, Write: 10 * time.Second},
		outboundQueue: outbound.Limits{Messages: 4096, Bytes: 1 << 20},
		heartbeat:     25 * time.Second,
		pongTimeout:   10 * time.Second,
		deflateFrom:   -1,
		marshal:       json.Marshal,
		unmarshal:     json.Unmarshal,
		logger:        slog.New(slog.DiscardHandler),
		outageTime:    5 * time.Second,
		outageBytes:   4 << 20,
		grace:         5 * time.Second,
		shutdownCode:  websocket.StatusServiceRestart,
	}

	var mistakes []error
	for _, opt := range opts {
		if opt == nil {
			continue
		}
		if err := opt(c); err != nil {
			mistakes = append(mistakes, fmt.Errorf("wsroom: %w", err))
		}
	}
	mistakes = append(mistakes, c.contradictions()...)

	c.overheadRate = overheadRate(c.heartbeat)
	c.limits.Size = c.maxMessage
	c.limits.Frame = uint64(c.maxMessage) + uint64(c.maxMessage)/4 + 64 // deflated data can be longer than inflated
	c.choose()
	if c.name != "" && c.logger != nil {
		c.logger = c.logger.With("hub", c.name)
	}
	return c, errors.Join(mistakes...)
}

// contradictions are the options that make no sense together, or alone.
func (c *config) contradictions() (mistakes []error) {
	if c.site.AnyOrigin && len(c.site.Origins) > 0 {
		mistakes = append(mistakes, errors.New("wsroom: WithOrigins has no effect beside WithInsecureAnyOrigin"))
	}
	if c.rateAction != SlowDown && !c.limitsRate() {
		mistakes = append(mistakes, errors.New("wsroom: WithRateLimitAction has no effect without WithRateLimit or WithByteRateLimit"))
	}
	if c.onExpire != nil && c.authorize == nil {
		mistakes = append(mistakes, errors.New("wsroom: OnExpire has no effect without WithAuthorize, whose function gives the time"))
	}
	if c.broker == nil && (c.onGap != nil || c.outage != Fail) {
		mistakes = append(mistakes, errors.New("wsroom: WithOutage and OnGap have no effect without WithBroker"))
	}
	if c.identity == nil && (c.presence != nil || c.onMemberJoin != nil || c.onMemberLeave != nil) {
		mistakes = append(mistakes, errors.New("wsroom: WithPresenceStore, OnMemberJoin and OnMemberLeave have no effect without WithIdentity"))
	}
	return mistakes
}

// overheadRate is the budget for frames that carry nothing, with room for the answers to the hub's own
// pings, twice over.
func overheadRate(heartbeat time.Duration) bucket.Rate {
	r := bucket.Rate{PerSecond: 10, Burst: 20}
	if heartbeat > 0 {
		r.PerSecond += int64(2 * time.Second / heartbeat)
	}
	return r
}

// limitsRate reports whether there is a limit on what clients send.
func (c *config) limitsRate() bool { return c.messageRate.Limits() || c.byteRate.Limits() }

// WithRoom names the room of each connection. The default is ByPath. See RoomFunc for its errors.
func WithRoom(f RoomFunc) Option {
	return func(c *config) error {
		c.room = f
		return notNil("WithRoom", f == nil)
	}
}

// WithAuthorize asks f before each upgrade. Its error refuses the request: a *StatusError with its
// own HTTP status, any other error with 403 and no text; but what Until returns admits it for a time.
// OnConnect gets the request as f leaves it: *r = *r.WithContext(ctx) hands on values, to Conn.Context,
// too. See BearerToken, and WithHandshakeTimeout for the time that f may take. f may be called
// concurrently.
func WithAuthorize(f func(r *http.Request, room string) error) Option {
	return func(c *config) error {
		c.authorize = f
		return notNil("WithAuthorize", f == nil)
	}
}

// WithOrigins lets pages of further origins connect. By default only pages of the request's own host
// may. A pattern is a host ("app.example.com", with its port unless that is the scheme's own), or a
// scheme and a host ("https://*.example.com"); * stands for any run of characters but a slash, as in
// path.Match. Case doesn't matter, a scheme's own port may be named or not, and wss stands for https, ws
// for http. Schemes that no site has, such as those of apps, are taken at their word: "file://",
// "capacitor://localhost", "vscode-webview://*". No pattern allows the origin "null".
func WithOrigins(patterns ...string) Option {
	own := slices.Clone(patterns)
	return func(c *config) error {
		origins, err := request.ParsePatterns("WithOrigins", own)
		c.site.Origins = append(c.site.Origins, origins...)
		return err
	}
}

// WithInsecureAnyOrigin lets pages of any site connect, with the cookies of whoever looks at them.
// For endpoints that are public and trust no cookie.
func WithInsecureAnyOrigin() Option {
	return func(c *config) error {
		c.site.AnyOrigin = true
		return nil
	}
}

// WithHosts restricts the hosts that requests may name, by the patterns of WithOrigins without a
// scheme; a pattern without a port fits any port. Without it, a stranger's domain that resolves to
// this server (DNS rebinding) counts as its own origin. Other requests get 403.
func WithHosts(patterns ...string) Option {
	own := slices.Clone(patterns)
	return func(c *config) error {
		hosts, err := request.ParsePatterns("WithHosts", own)
		c.site.Hosts = append(c.site.Hosts, hosts...)
		if slices.ContainsFunc(own, func(p string) bool { return strings.Contains(p, "://") }) {
			return errors.New("WithHosts: a host has no scheme")
		}
		return err
	}
}

// WithTrustedProxies names the proxies in front, by prefix ("10.0.0.0/8") or address ("::1"). Where a
// request's peer is one of them, its RemoteAddr becomes the client's: the last address in
// X-Forwarded-For that isn't a trusted proxy's, with port 0, since its port isn't known. That is what
// all functions that get the request see, and what Conn.RemoteAddr returns. The header of any other
// peer, and what stands to the left of the client's address, could be anyone's invention and is
// ignored; so is what stands to the left of an entry that is no address. A peer on a Unix socket has
// no address and is no trusted proxy.
func WithTrustedProxies(prefixes ...string) Option {
	own := slices.Clone(prefixes)
	return func(c *config) error {
		proxies, err := request.ParseProxies("WithTrustedProxies", own)
		c.proxies = append(c.proxies, proxies...)
		return err
	}
}

// WithSubprotocols offers subprotocols, in order of preference (RFC 6455, section 1.9). A client
// that asks for none of them is accepted without one; see Conn.Subprotocol. Case doesn't matter when they
// are compared; the client and Conn.Subprotocol get the name as it is spelled here. Names that begin with
// "bearer." are refused: they are tokens, see BearerToken.
func WithSubprotocols(names ...string) Option {
	own := slices.Clone(names)
	return func(c *config) error {
		c.subprotocols = own
		for _, name := range own {
			switch {
			case !request.IsToken(name):
				return fmt.Errorf("WithSubprotocols: %q is not a token", name)
			case request.IsBearer(name):
				return fmt.Errorf("WithSubprotocols: %q: what begins with %q is a secret of the client's, see BearerToken", name, request.BearerPrefix)
			}
		}
		return nil
	}
}

// WithHandshakeTimeout limits the time from the call of ServeHTTP until the client has been sent the
// answer that upgrades the connection. The default is 10 s. The request that the functions of WithRoom,
// WithMaxConnsPer and WithAuthorize see has a context with that deadline; they should heed it, for they
// aren't cut short. Past it the request gets 503, however they decided. The time for the request's
// header to come in is for http.Server's ReadHeaderTimeout to limit.
func WithHandshakeTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.handshake = d
		return positive("WithHandshakeTimeout", d)
	}
}

// WithMaxMessageSize limits inbound messages to n bytes, counted after decompression. The default is
// 64 KiB. A larger one ends the connection with close code 1009, and so does a frame that is announced
// as far larger, before any of it has come.
func WithMaxMessageSize(n int64) Option {
	return func(c *config) error {
		c.maxMessage = n
		return positive("WithMaxMessageSize", n)
	}
}

// WithMessageTimeout limits the time from a message's first byte to its last, fragments included, and that
// of a ping, pong or close frame likewise. The default is 10 s. Past it the connection ends with close code
// 1008.
func WithMessageTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.limits.Message = d
		return positive("WithMessageTimeout", d)
	}
}

// WithSendQueue limits what waits to be written to one connection, in messages and in bytes. The
// default is 4096 messages and 1 MiB. A message is always taken when nothing waits, whatever its
// size. Beyond the limits see WithOverflow.
//
// What OnConnect itself sends to its connection counts apart, under limits of the same size, so that neither
// a big snapshot nor a burst from OnConnect makes a slow client. Where there is no room for it the send
// waits: at the most for the write timeout, for each 256 KiB that is to be written before. After that it
// returns ErrSlow, which ends the connection, under CloseSlow, else ErrQueueFull. No other send ever waits.
func WithSendQueue(messages int, bytes int64) Option {
	return func(c *config) error {
		c.outboundQueue.Messages, c.outboundQueue.Bytes = messages, bytes
		return errors.Join(positive("WithSendQueue: messages", messages), positive("WithSendQueue: bytes", bytes))
	}
}

// WithOverflow says what happens when a send queue is full. The default is CloseSlow.
func WithOverflow(o Overflow) Option {
	return func(c *config) error {
		c.outboundQueue.Policy = outbound.Policy(o) // in the same order
		return within("WithOverflow", int(o), int(DropNewest))
	}
}

// WithHeartbeat pings a peer that has been silent for interval, a little less at random, and ends
// the connection with ErrHeartbeat if nothing comes within timeout. The default is 25 s and 10 s.
// Anything the peer sends counts as life. What counts of timeout is the time in which the hub reads: while a
// callback runs, a rate limit holds or the process stands still, the peer isn't judged. It is pinged then all
// the same, each second at the most, so that one that is gone is found by a ping that can't be written; where
// the network is cut, that is when the system gives up, on Linux after some 15 minutes. An interval of 0 turns
// heartbeats off.
func WithHeartbeat(interval, timeout time.Duration) Option {
	return func(c *config) error {
		c.heartbeat, c.pongTimeout = interval, timeout
		if interval == 0 {
			return nil
		}
		return errors.Join(positive("WithHeartbeat: interval", interval), positive("WithHeartbeat: timeout", timeout))
	}
}

// WithWriteTimeout limits the time that a write to the socket may take, for each 256 KiB of it. The
// default is 10 s. Past it the connection ends.
func WithWriteTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.limits.Write = d
		return positive("WithWriteTimeout", d)
	}
}

// WithCompression negotiates permessage-deflate without context takeover (RFC 7692) and compresses
// messages of at least threshold bytes, once for all receivers, but none written through
// Conn.WebSocket. It is off by default: it costs processor time and memory, and what mixes secrets with a
// stranger's text must not be compressed.
func WithCompression(threshold int) Option {
	return func(c *config) error {
		c.deflateFrom = threshold
		return notNegative("WithCompression", threshold)
	}
}

// WithRateLimit limits the messages that one client sends, by a token bucket: perSecond on average
// and burst at once. There is no limit by default. Over it the hub reads more slowly, so that TCP
// pushes back; see WithRateLimitAction. What carries nothing has a budget of its own, always: 10 pings
// and pongs a second and 20 at once, which the answers to the hub's pings never exceed. 256 empty
// fragments of messages count as one of them, fragments of 16 bytes or more on average don't count. Over
// it the connection ends with ErrRateLimited and close code 1008.
func WithRateLimit(perSecond, burst int) Option {
	return func(c *config) error {
		c.messageRate = bucket.Rate{PerSecond: int64(perSecond), Burst: int64(burst)}
		return errors.Join(positive("WithRateLimit: messages per second", perSecond),
			positive("WithRateLimit: burst", burst))
	}
}

// WithByteRateLimit limits the bytes of the messages that one client sends, decompressed and without
// frame headers, as WithRateLimit does their number. Both may be set: a message must then fit both
// rates, and waits for the slower one. A message larger than burst passes, after a wait in
// proportion; but under Disconnect it always ends the connection, so let burst be at least the
// WithMaxMessageSize there.
func WithByteRateLimit(perSecond, burst int64) Option {
	return func(c *config) error {
		c.byteRate = bucket.Rate{PerSecond: perSecond, Burst: burst}
		return errors.Join(positive("WithByteRateLimit: bytes per second", perSecond),
			positive("WithByteRateLimit: burst", burst))
	}
}

// WithRateLimitAction says what happens to a client over WithRateLimit or WithByteRateLimit. The
// default is SlowDown.
func WithRateLimitAction(a RateLimitAction) Option {
	return func(c *config) error {
		c.rateAction = a
		return within("WithRateLimitAction", int(a), int(Disconnect))
	}
}

// WithMaxConns limits the connections of the hub on this node. There is no limit by default. Requests
// over it get 503 before the upgrade.
func WithMaxConns(n int) Option {
	return func(c *config) error {
		c.maxConns = n
		return positive("WithMaxConns", n)
	}
}

// WithMaxRooms limits the rooms of the hub on this node. There is no limit by default. Requests that
// would open one more get 503 before the upgrade, and Join a *StatusError of 503.
func WithMaxRooms(n int) Option {
	return func(c *config) error {
		c.maxRooms = n
		return positive("WithMaxRooms", n)
	}
}

// WithMaxMembers limits the members of each room on this node. There is no limit by default. Requests
// over it get 503 before the upgrade, and Join a *StatusError of 503.
func WithMaxMembers(n int) Option {
	return func(c *config) error {
		c.maxMembers = n
		return positive("WithMaxMembers", n)
	}
}

// WithMaxConnsPer limits the connections whose requests have the same key, such as a user or, with
// ByAddr, an address. Requests over it get 429 before the upgrade. key may be called concurrently.
func WithMaxConnsPer(key func(*http.Request) string, n int) Option {
	return func(c *config) error {
		c.connKey, c.maxPerKey = key, n
		return errors.Join(notNil("WithMaxConnsPer", key == nil), positive("WithMaxConnsPer", n))
	}
}

// WithDrain makes Shutdown spread its closes evenly at random over window, so that the clients don't all
// come back at once elsewhere. The default is 0: all at once.
func WithDrain(window time.Duration) Option {
	return func(c *config) error {
		c.drain = window
		return notNegative("WithDrain", window)
	}
}

// WithShutdownCode has Shutdown close connections with code. The default is 1012, service restart, after
// which every client that reconnects by itself does; after 1001, going away, some don't. It must be a code
// that a close frame may hold (RFC 6455, section 7.4).
func WithShutdownCode(code websocket.StatusCode) Option {
	return func(c *config) error {
		c.shutdownCode = code
		if err := frame.CheckCloseCode(code); err != nil {
			return fmt.Errorf("WithShutdownCode: code %d can't be sent in a close frame", int(code))
		}
		return nil
	}
}

// WithBadJSON says what becomes of a connection whose message doesn't decode for OnJSON. The default
// is CloseOnBad.
func WithBadJSON(b BadJSON) Option {
	return func(c *config) error {
		c.badJSON = b
		return within("WithBadJSON", int(b), int(KeepOpen))
	}
}

// WithJSON replaces encoding/json. Both functions may be called concurrently; unmarshal must not keep
// the bytes it is given.
func WithJSON(marshal func(any) ([]byte, error), unmarshal func([]byte, any) error) Option {
	return func(c *config) error {
		c.marshal, c.unmarshal = marshal, unmarshal
		return notNil("WithJSON", marshal == nil || unmarshal == nil)
	}
}

// WithLogger logs what can't be returned: panics in callbacks, requests that can't be upgraded, a broker's
// outages, and callbacks that New ignores; docs/logs.md lists all. By default nothing is logged.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		c.logger = l
		return notNil("WithLogger", l == nil)
	}
}

// WithObserver counts and times what the hub does, for metrics and, if o is a Tracer, for traces.
func WithObserver(o Observer) Option {
	return func(c *config) error {
		c.observer = o
		return notNil("WithObserver", o == nil)
	}
}

// WithName names the hub, in its log lines and to keep hubs apart that share a broker: those of one name
// share their rooms. Without a broker two hubs never do, in one process either. A name is at most 100
// bytes.
func WithName(name string) Option {
	return func(c *config) error {
		c.name = name
		if len(name) > maxHubName {
			return fmt.Errorf("WithName: more than %d bytes", maxHubName)
		}
		return nil
	}
}

const maxHubName = 100 // bytes; with maxRoomName it bounds a broker's topics

func notNil(option string, isNil bool) error {
	if isNil {
		return fmt.Errorf("%s: must not be nil", option)
	}
	return nil
}

func positive[N int | int64 | time.Duration](option string, n N) error {
	if n <= 0 {
		return fmt.Errorf("%s: must be positive, not %v", option, n)
	}
	return nil
}

func notNegative[N int | time.Duration](option string, n N) error {
	if n < 0 {
		return fmt.Errorf("%s: must not be negative, but is %v", option, n)
	}
	return nil
}

func within(option string, value, last int) error {
	if value < 0 || value > last {
		return fmt.Errorf("%s: unknown value %d", option, value)
	}
	return nil
}
