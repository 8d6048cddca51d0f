package wsroom

import (
	"crypto/rand"
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
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/resume"
)

// Option configures a [Hub]. Options are passed to [New]. If two options set the same thing, New uses the later
// one. [WithOrigins], [WithHosts] and [WithTrustedProxies] add to what the earlier ones set. New skips a nil
// Option.
type Option func(*config) error

// Overflow sets what happens to a message for a connection whose send queue is full; see [WithOverflow].
type Overflow int

const (
	// CloseSlow ends the connection with [ErrSlow] and close code 1013. It is the default.
	CloseSlow Overflow = iota
	// DropOldest drops the messages that have waited longest, to make room for the new message.
	DropOldest
	// DropNewest drops the new message.
	DropNewest
)

// BadJSON sets what happens to a connection whose message doesn't decode; see [WithBadJSON].
type BadJSON int

const (
	// CloseOnBad ends the connection with close code 1007. It is the default.
	CloseOnBad BadJSON = iota
	// KeepOpen passes the [*DecodeError] to the callback and keeps the connection open.
	KeepOpen
)

// RateLimitAction sets what happens to a client that exceeds [WithRateLimit] or [WithByteRateLimit]; see
// [WithRateLimitAction].
type RateLimitAction int

const (
	// SlowDown pauses reading until the rate allows more, so that TCP slows the client down. It is the
	// default.
	SlowDown RateLimitAction = iota
	// Disconnect ends the connection with [ErrRateLimited] and close code 1008.
	Disconnect
)

// config holds what the options set. It doesn't change after New.
type config struct {
	room         RoomFunc
	authorize    func(r *http.Request, room string) error
	site         request.Site // the hosts and origins that are allowed
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
	inbound       line.Limits
	badJSON       BadJSON

	maxConns, maxRooms, maxMembers int // 0: no limit
	connKey                        func(*http.Request) string
	maxPerKey                      int
	maxAge                         time.Duration // 0: no limit
	drain                          time.Duration
	shutdownCode                   websocket.StatusCode

	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	logger    *slog.Logger
	observer  Observer
	name      string

	history      history.Limits // no messages: there is no history
	historyTotal int64          // bytes
	resumeKeys   [][]byte

	broker      Broker
	outage      Outage
	outageTime  time.Duration
	outageBytes int64
	onGap       func(room string, err error)

	identity      func(*http.Request) string
	presence      PresenceStore
	grace         time.Duration
	memberInfo    func(*http.Request) any
	onMemberJoin  func(room string, m Member)
	onMemberLeave func(room string, m Member)

	onMemberUpdate func(room string, m Member)

	callbacks
}

// newConfig applies the options to the defaults. Its error joins all mistakes.
func newConfig(opts []Option) (*config, error) {
	c := &config{
		room:          ByPath,
		handshake:     10 * time.Second,
		maxMessage:    64 << 10,
		limits:        frame.Limits{Quiet: line.Quiet(), Message: 10 * time.Second, Write: 10 * time.Second},
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
		historyTotal:  defaultHistoryTotal,
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

	c.inbound.EmptyFrames = line.EmptyFrameRate(c.heartbeat)
	c.limits.Size, c.inbound.Message = c.maxMessage, c.maxMessage
	c.limits.Frame = uint64(c.maxMessage) + uint64(c.maxMessage)/4 + 64 // compressed data can be longer
	c.choose()
	if c.resumeKeys == nil {
		c.resumeKeys = [][]byte{[]byte(rand.Text() + rand.Text())}
	}
	if c.name != "" && c.logger != nil {
		c.logger = c.logger.With("hub", c.name)
	}
	return c, errors.Join(mistakes...)
}

// contradictions returns an error for each option that has no effect beside, or without, another one.
func (c *config) contradictions() (mistakes []error) {
	if c.site.AnyOrigin && len(c.site.Origins) > 0 {
		mistakes = append(mistakes, errors.New("wsroom: WithOrigins has no effect beside WithInsecureAnyOrigin"))
	}
	if c.inbound.Disconnect && !c.inbound.LimitsMessages() {
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
	if shows := c.memberInfo != nil || c.onMemberUpdate != nil; shows && c.identity == nil {
		mistakes = append(mistakes, errors.New("wsroom: WithMemberInfo and OnMemberUpdate have no effect without WithIdentity"))
	} else if shows && !c.keepsInfos() {
		mistakes = append(mistakes, errors.New("wsroom: WithMemberInfo and OnMemberUpdate need a PresenceStore that has EnterInfo and Infos"))
	}
	return append(mistakes, c.historyMistakes()...)
}

// historyMistakes returns an error for each mistake in what WithHistory goes with.
func (c *config) historyMistakes() (mistakes []error) {
	if c.history.Messages == 0 {
		if c.historyTotal != defaultHistoryTotal || c.resumeKeys != nil {
			mistakes = append(mistakes, errors.New("wsroom: WithHistoryTotal and WithResumeKey have no effect without WithHistory"))
		}
		return mistakes
	}
	if c.broker == nil {
		return nil
	}

	if _, ok := c.broker.(Keeper); !ok {
		mistakes = append(mistakes, errors.New("wsroom: WithHistory needs a broker that is a Keeper"))
	}
	if c.resumeKeys == nil {
		mistakes = append(mistakes, errors.New("wsroom: WithHistory and WithBroker need WithResumeKey, with the same key on all nodes"))
	}
	if c.outage == DeliverLocally {
		mistakes = append(mistakes, errors.New("wsroom: WithHistory excludes WithOutage(DeliverLocally), whose messages have no place in a room's order"))
	}
	return mistakes
}

// WithRoom sets the function that names the room of each connection. The default is [ByPath]. See [RoomFunc]
// for its errors.
func WithRoom(f RoomFunc) Option {
	return func(c *config) error {
		c.room = f
		return notNil("WithRoom", f == nil)
	}
}

// WithAuthorize sets the function that authorizes each request before the upgrade. An error of f refuses the
// request: a [*StatusError] with its own HTTP status, any other error with 403 and no text. The exception is
// the error that [Until] returns, which admits the request for a limited time.
//
// [OnConnect] gets the request as f leaves it. So *r = *r.WithContext(ctx) in f passes values on, also to
// [Conn.Context]. [BearerToken] returns the request's token. [WithHandshakeTimeout] limits the time that f may
// take. f may be called concurrently.
func WithAuthorize(f func(r *http.Request, room string) error) Option {
	return func(c *config) error {
		c.authorize = f
		return notNil("WithAuthorize", f == nil)
	}
}

// WithOrigins allows pages of further origins to connect (RFC 6455, section 10.2). By default only pages of the
// request's own host may connect.
//
// A pattern is a host ("app.example.com", with its port unless that is the scheme's default port), or a scheme
// and a host ("https://*.example.com"). * matches any sequence of characters other than a slash, as in
// [path.Match]. Case doesn't matter. The scheme's default port may be given or left out. wss means https, and
// ws means http. Schemes that websites don't have, such as those of apps, are compared as they are written:
// "file://", "capacitor://localhost", "vscode-webview://*". No pattern allows the origin "null".
func WithOrigins(patterns ...string) Option {
	own := slices.Clone(patterns)
	return func(c *config) error {
		origins, err := request.ParsePatterns("WithOrigins", own)
		c.site.Origins = append(c.site.Origins, origins...)
		return err
	}
}

// WithInsecureAnyOrigin allows pages of any site to connect, with the cookies of the users that view them. Use
// it only for endpoints that are public and trust no cookie.
func WithInsecureAnyOrigin() Option {
	return func(c *config) error {
		c.site.AnyOrigin = true
		return nil
	}
}

// WithHosts restricts the hosts that requests may name. Requests for other hosts get 403. The patterns are
// those of [WithOrigins] without a scheme; a pattern without a port matches any port. By default any host is
// allowed. Then a stranger's domain that resolves to this server (DNS rebinding) counts as its own origin.
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

// WithTrustedProxies names the proxies in front of the server, by prefix ("10.0.0.0/8") or address ("::1"). If
// a request's peer is one of them, the request's RemoteAddr becomes the client's address: the last address in
// X-Forwarded-For that isn't a trusted proxy's. Its port is 0, because the real port isn't known. All
// functions that get the request see this address, and [Conn.RemoteAddr] returns it.
//
// The header of any other peer is ignored, because a client can forge it. So are the entries to the left of
// the client's address, and the entries to the left of one that isn't an address. A peer on a Unix socket has
// no address and is never a trusted proxy.
func WithTrustedProxies(prefixes ...string) Option {
	own := slices.Clone(prefixes)
	return func(c *config) error {
		proxies, err := request.ParseProxies("WithTrustedProxies", own)
		c.proxies = append(c.proxies, proxies...)
		return err
	}
}

// WithSubprotocols sets the subprotocols that the hub supports, in order of preference (RFC 6455, section 1.9).
// A client that asks for none of them is accepted without one; see [Conn.Subprotocol]. Names are compared
// without regard to case. The client and Conn.Subprotocol get the name as it is spelled here. [New] refuses
// names that begin with "bearer.", because those are tokens; see [BearerToken]. Nor may a name be the hub's own
// protocol, wsroom.v1, which every hub speaks, or end or begin as its entries do: "+wsroom.v1", "resume.".
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
			case resume.IsReserved(name):
				return fmt.Errorf("WithSubprotocols: %q is an entry of the hub's own protocol %s", name, resume.Protocol)
			}
		}
		return nil
	}
}

// WithHandshakeTimeout limits the time from the call of [Hub.ServeHTTP] until the answer that upgrades the
// connection has been written. The default is 10 s.
//
// The functions of [WithRoom], [WithMaxConnsPer] and [WithAuthorize] get a request whose context has that
// deadline. They should observe it, because the hub doesn't interrupt them. After the deadline the request
// gets 503, whatever they return. The time for receiving the request's header isn't included:
// [http.Server.ReadHeaderTimeout] limits that.
func WithHandshakeTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.handshake = d
		return positive("WithHandshakeTimeout", d)
	}
}

// WithMaxMessageSize limits inbound messages to n bytes, counted after decompression. The default is 64 KiB. A
// larger message ends the connection with close code 1009. So does a frame whose header announces a much
// larger size, before its payload arrives.
func WithMaxMessageSize(n int64) Option {
	return func(c *config) error {
		c.maxMessage = n
		return positive("WithMaxMessageSize", n)
	}
}

// WithMessageTimeout limits the time from the first byte of an inbound message to its last, over all its
// fragments. It limits the time of a ping, pong or close frame likewise. The default is 10 s. When it has
// passed, the connection ends with close code 1008.
func WithMessageTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.limits.Message = d
		return positive("WithMessageTimeout", d)
	}
}

// WithSendQueue limits the messages that wait to be written to one connection, in number and in bytes. The
// default is 4096 messages and 1 MiB. An empty queue takes a message of any size. [WithOverflow] sets what
// happens to a message beyond the limits.
//
// Messages that [OnConnect] sends to its own connection are counted separately, under limits of the same size.
// So neither a large snapshot nor a burst from OnConnect makes a client slow. If there is no room for such a
// message, the send waits, at most the write timeout for each 256 KiB that must be written first. After that
// it returns [ErrSlow] and ends the connection under [CloseSlow]; otherwise it returns [ErrQueueFull]. No
// other send ever waits.
func WithSendQueue(messages int, bytes int64) Option {
	return func(c *config) error {
		c.outboundQueue.Messages, c.outboundQueue.Bytes = messages, bytes
		return errors.Join(positive("WithSendQueue: messages", messages), positive("WithSendQueue: bytes", bytes))
	}
}

// WithOverflow sets what happens when a send queue is full. The default is [CloseSlow].
func WithOverflow(o Overflow) Option {
	return func(c *config) error {
		c.outboundQueue.Policy = outbound.Policy(o) // in the same order
		return within("WithOverflow", int(o), int(DropNewest))
	}
}

// WithFreshness bounds what is on its way to each client, so that what the client reads is fresh: no more
// than about this many bytes are written that the client hasn't read. What comes beyond it waits in the send
// queue, where [WithOverflow] drops and [Target.Latest] replaces what is stale. By default there is no bound,
// and the kernels and proxies between hold from 100 KB to several MB for a client that reads slowly: at 30 KB
// a second that is at least 3 s.
//
// The hub finds out what the client has read by pings that stand behind the messages, one for each half of
// the bytes. So a client gets at most this many bytes in the time that a ping takes there and back, and pongs
// are its answer: 32 KiB at 100 ms is 320 KB a second. A single message may be larger than bytes, and so may
// be what [OnConnect] sends. bytes is at least 1024.
//
// The answer is read where messages are read. So while a callback of the connection runs, or the function of
// [Serve] doesn't read, the client gets no more than these bytes. A client that doesn't answer within the
// time of [WithWriteTimeout] while messages wait for it, and while the hub reads, is treated as one that
// doesn't read.
func WithFreshness(bytes int64) Option {
	return func(c *config) error {
		c.outboundQueue.Unread = bytes
		if bytes < leastUnread {
			return fmt.Errorf("WithFreshness: must be at least %d bytes, not %d", leastUnread, bytes)
		}
		return nil
	}
}

const leastUnread = 1 << 10

// WithHeartbeat pings a peer that has been silent for interval (randomly a little less), and ends the
// connection with [ErrHeartbeat] if nothing arrives within timeout. The defaults are 25 s and 10 s. Any data
// from the peer shows that it is alive. An interval of 0 turns heartbeats off.
//
// Only time in which the hub reads counts towards timeout. While a callback runs, a rate limit pauses reading,
// or the process is suspended, the peer isn't judged. The hub still pings it then, at most once a second. So a
// peer that is gone is found when a ping can't be written. If the network is cut, that is when the operating
// system gives up, on Linux after about 15 minutes.
func WithHeartbeat(interval, timeout time.Duration) Option {
	return func(c *config) error {
		c.heartbeat, c.pongTimeout = interval, timeout
		if interval == 0 {
			return nil
		}
		return errors.Join(positive("WithHeartbeat: interval", interval), positive("WithHeartbeat: timeout", timeout))
	}
}

// WithWriteTimeout limits the time that each 256 KiB of a write to the socket may take. The default is 10 s.
// When it has passed, the connection ends.
func WithWriteTimeout(d time.Duration) Option {
	return func(c *config) error {
		c.limits.Write = d
		return positive("WithWriteTimeout", d)
	}
}

// WithCompression negotiates permessage-deflate without context takeover (RFC 7692, section 7.1.1) and
// compresses messages of at least threshold bytes, once for all receivers. It doesn't compress messages that
// are written through [Conn.WebSocket]. Compression is off by default, because it costs processor time and
// memory. Don't use it for messages that mix secrets with text from other people: the compressed length can
// reveal the secrets.
func WithCompression(threshold int) Option {
	return func(c *config) error {
		c.deflateFrom = threshold
		return notNegative("WithCompression", threshold)
	}
}

// WithRateLimit limits the messages that one client sends, by a token bucket: perSecond on average and burst at
// once. There is no limit by default. If a client exceeds the limit, the hub reads more slowly, so that TCP
// slows the client down; see [WithRateLimitAction].
//
// Pings, pongs and tiny fragments always have a budget of their own: 10 pings and pongs a second, 20 at once.
// The answers to the hub's own pings never exceed it. An empty fragment of a message costs 1/256 of a ping.
// Fragments of 16 bytes or more on average are free. A connection that exceeds this budget ends with
// [ErrRateLimited] and close code 1008.
func WithRateLimit(perSecond, burst int) Option {
	return func(c *config) error {
		c.inbound.Messages = bucket.Rate{PerSecond: int64(perSecond), Burst: int64(burst)}
		return errors.Join(positive("WithRateLimit: messages per second", perSecond),
			positive("WithRateLimit: burst", burst))
	}
}

// WithByteRateLimit limits the bytes of the messages that one client sends, as [WithRateLimit] limits their
// number. The bytes are counted after decompression and without frame headers. If both are set, a message must
// fit both rates and waits for the slower one. A message larger than burst passes after a wait in proportion
// to its size. Under [Disconnect] it always ends the connection, so burst should be at least the size of
// [WithMaxMessageSize] there.
func WithByteRateLimit(perSecond, burst int64) Option {
	return func(c *config) error {
		c.inbound.Bytes = bucket.Rate{PerSecond: perSecond, Burst: burst}
		return errors.Join(positive("WithByteRateLimit: bytes per second", perSecond),
			positive("WithByteRateLimit: burst", burst))
	}
}

// WithRateLimitAction sets what happens to a client that exceeds [WithRateLimit] or [WithByteRateLimit]. The
// default is [SlowDown].
func WithRateLimitAction(a RateLimitAction) Option {
	return func(c *config) error {
		c.inbound.Disconnect = a == Disconnect
		return within("WithRateLimitAction", int(a), int(Disconnect))
	}
}

// WithMaxConns limits the connections of the hub on this node. There is no limit by default. Requests beyond
// the limit get 503 before the upgrade.
func WithMaxConns(n int) Option {
	return func(c *config) error {
		c.maxConns = n
		return positive("WithMaxConns", n)
	}
}

// WithMaxRooms limits the rooms of the hub on this node. There is no limit by default. A request that would
// open one room more gets 503 before the upgrade. [Conn.Join] returns a [*StatusError] with 503.
func WithMaxRooms(n int) Option {
	return func(c *config) error {
		c.maxRooms = n
		return positive("WithMaxRooms", n)
	}
}

// WithMaxMembers limits the members of each room on this node. There is no limit by default. Requests beyond
// the limit get 503 before the upgrade. [Conn.Join] returns a [*StatusError] with 503.
func WithMaxMembers(n int) Option {
	return func(c *config) error {
		c.maxMembers = n
		return positive("WithMaxMembers", n)
	}
}

// WithMaxConnsPer limits the connections on this node whose requests have the same key, such as a user, or an
// address with [ByAddr]. There is no limit by default. Requests beyond the limit get 429 before the upgrade.
// key may be called concurrently.
func WithMaxConnsPer(key func(*http.Request) string, n int) Option {
	return func(c *config) error {
		c.connKey, c.maxPerKey = key, n
		return errors.Join(notNil("WithMaxConnsPer", key == nil), positive("WithMaxConnsPer", n))
	}
}

// WithMaxAge limits how long a connection lives. It ends with [ErrMaxAge] and close code 1012 at an age
// between 80 % and 100 % of d, chosen at random. So the connections that came together after a deploy don't
// all end at once: with an hour, they end spread over 12 minutes. Clients that reconnect come back; they can
// be balanced over the nodes anew, and their requests are authorized again. There is no limit by default.
func WithMaxAge(d time.Duration) Option {
	return func(c *config) error {
		c.maxAge = d
		return positive("WithMaxAge", d)
	}
}

// WithDrain makes [Hub.Shutdown] spread its closes evenly over window, in random order. So the clients don't
// all reconnect elsewhere at the same time. The default is 0: Shutdown closes all connections at once.
func WithDrain(window time.Duration) Option {
	return func(c *config) error {
		c.drain = window
		return notNegative("WithDrain", window)
	}
}

// WithShutdownCode sets the close code of [Hub.Shutdown]. The default is 1012, service restart. All clients
// that reconnect automatically do so after 1012; some don't after 1001, going away. code must be one that a
// close frame may contain (RFC 6455, section 7.4).
func WithShutdownCode(code websocket.StatusCode) Option {
	return func(c *config) error {
		c.shutdownCode = code
		if err := frame.CheckCloseCode(code); err != nil {
			return fmt.Errorf("WithShutdownCode: code %d can't be sent in a close frame", int(code))
		}
		return nil
	}
}

// WithBadJSON sets what happens to a connection whose message doesn't decode for [OnJSON] or [Conn.ReadJSON].
// The default is [CloseOnBad].
func WithBadJSON(b BadJSON) Option {
	return func(c *config) error {
		c.badJSON = b
		return within("WithBadJSON", int(b), int(KeepOpen))
	}
}

// WithJSON replaces encoding/json. Both functions may be called concurrently. unmarshal must not keep the bytes
// that it is given.
func WithJSON(marshal func(any) ([]byte, error), unmarshal func([]byte, any) error) Option {
	return func(c *config) error {
		c.marshal, c.unmarshal = marshal, unmarshal
		return notNil("WithJSON", marshal == nil || unmarshal == nil)
	}
}

// WithLogger sets the logger for events that can't be returned as errors: panics in callbacks, requests that
// can't be upgraded, outages of a broker, callbacks that [New] ignores; and, at level debug, why each refused request
// is refused. docs/logs.md lists all of them. By default the hub logs nothing.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		c.logger = l
		return notNil("WithLogger", l == nil)
	}
}

// WithObserver sets the [Observer], which receives counts and times of what the hub does, for metrics. If o is
// also a [Tracer], it receives traces, too.
func WithObserver(o Observer) Option {
	return func(c *config) error {
		c.observer = o
		return notNil("WithObserver", o == nil)
	}
}

// WithName names the hub, in its log lines and for its broker and presence store. Of the hubs that share a
// broker, those with the same name share their rooms. Without a broker two hubs never share rooms, not even in
// one process. A name has at most 100 bytes. The default is "".
func WithName(name string) Option {
	return func(c *config) error {
		c.name = name
		if len(name) > maxHubName {
			return fmt.Errorf("WithName: more than %d bytes", maxHubName)
		}
		return nil
	}
}

const maxHubName = 100 // bytes; with maxName it limits the length of a broker's topics

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
