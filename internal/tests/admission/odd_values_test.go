package admission_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Each option takes its zero, negative, largest and nil values, or New says what is wrong with them; what it
// takes works.
func TestOptionsTakeOddValuesOrSayNo(t *testing.T) {
	const most, least = time.Duration(math.MaxInt64), time.Duration(math.MinInt64)
	key := func(*http.Request) string { return "" }
	someBroker := wsroom.WithBroker(kit.NewWire())
	beside := map[string][]wsroom.Option{ // without which an option is a mistake
		"WithOutage": {someBroker}, "OnGap": {someBroker}, "WithRateLimitAction": {wsroom.WithRateLimit(10, 10)},
		"WithPresenceStore": {wsroom.WithIdentity(key)}, "OnMemberJoin": {wsroom.WithIdentity(key)}, "OnMemberLeave": {wsroom.WithIdentity(key)},
		"OnExpire": {wsroom.WithAuthorize(func(*http.Request, string) error { return nil })}, "WithPresenceGrace": {wsroom.WithIdentity(key)},
	}
	for name, values := range map[string]struct{ fine, wrong []wsroom.Option }{
		"WithHandshakeTimeout": {[]wsroom.Option{wsroom.WithHandshakeTimeout(most)}, []wsroom.Option{wsroom.WithHandshakeTimeout(0), wsroom.WithHandshakeTimeout(-1), wsroom.WithHandshakeTimeout(least)}},
		"WithMessageTimeout":   {[]wsroom.Option{wsroom.WithMessageTimeout(most)}, []wsroom.Option{wsroom.WithMessageTimeout(0), wsroom.WithMessageTimeout(least)}},
		"WithWriteTimeout":     {[]wsroom.Option{wsroom.WithWriteTimeout(most)}, []wsroom.Option{wsroom.WithWriteTimeout(0), wsroom.WithWriteTimeout(least)}},
		"WithDrain":            {[]wsroom.Option{wsroom.WithDrain(0), wsroom.WithDrain(1)}, []wsroom.Option{wsroom.WithDrain(-1), wsroom.WithDrain(least)}},
		"WithPresenceGrace":    {[]wsroom.Option{wsroom.WithPresenceGrace(0), wsroom.WithPresenceGrace(most)}, []wsroom.Option{wsroom.WithPresenceGrace(-1)}},
		"WithHeartbeat":        {[]wsroom.Option{wsroom.WithHeartbeat(0, 0), wsroom.WithHeartbeat(0, -1), wsroom.WithHeartbeat(time.Hour, most)}, []wsroom.Option{wsroom.WithHeartbeat(-1, 1), wsroom.WithHeartbeat(1, 0), wsroom.WithHeartbeat(1, least)}},
		"WithMaxMessageSize":   {[]wsroom.Option{wsroom.WithMaxMessageSize(math.MaxInt64)}, []wsroom.Option{wsroom.WithMaxMessageSize(0), wsroom.WithMaxMessageSize(math.MinInt64)}},
		"WithSendQueue":        {[]wsroom.Option{wsroom.WithSendQueue(1, 1), wsroom.WithSendQueue(math.MaxInt, math.MaxInt64)}, []wsroom.Option{wsroom.WithSendQueue(0, 1), wsroom.WithSendQueue(1, 0), wsroom.WithSendQueue(-1, -1)}},
		"WithOverflow":         {[]wsroom.Option{wsroom.WithOverflow(wsroom.DropNewest)}, []wsroom.Option{wsroom.WithOverflow(-1), wsroom.WithOverflow(math.MaxInt)}},
		"WithCompression":      {[]wsroom.Option{wsroom.WithCompression(0), wsroom.WithCompression(math.MaxInt)}, []wsroom.Option{wsroom.WithCompression(-1), wsroom.WithCompression(math.MinInt)}},
		"WithMaxConns":         {[]wsroom.Option{wsroom.WithMaxConns(1), wsroom.WithMaxConns(math.MaxInt)}, []wsroom.Option{wsroom.WithMaxConns(0), wsroom.WithMaxConns(-1)}},
		"WithMaxRooms":         {[]wsroom.Option{wsroom.WithMaxRooms(1), wsroom.WithMaxRooms(math.MaxInt)}, []wsroom.Option{wsroom.WithMaxRooms(0), wsroom.WithMaxRooms(-1)}},
		"WithMaxMembers":       {[]wsroom.Option{wsroom.WithMaxMembers(1), wsroom.WithMaxMembers(math.MaxInt)}, []wsroom.Option{wsroom.WithMaxMembers(0), wsroom.WithMaxMembers(-1)}},
		"WithMaxConnsPer":      {[]wsroom.Option{wsroom.WithMaxConnsPer(key, 1), wsroom.WithMaxConnsPer(key, math.MaxInt)}, []wsroom.Option{wsroom.WithMaxConnsPer(nil, 1), wsroom.WithMaxConnsPer(key, 0), wsroom.WithMaxConnsPer(key, -1)}},
		"WithRateLimit":        {[]wsroom.Option{wsroom.WithRateLimit(1, 1), wsroom.WithRateLimit(math.MaxInt, math.MaxInt)}, []wsroom.Option{wsroom.WithRateLimit(0, 1), wsroom.WithRateLimit(1, 0), wsroom.WithRateLimit(-1, -1)}},
		"WithByteRateLimit":    {[]wsroom.Option{wsroom.WithByteRateLimit(1, 9), wsroom.WithByteRateLimit(math.MaxInt64, math.MaxInt64)}, []wsroom.Option{wsroom.WithByteRateLimit(0, 1), wsroom.WithByteRateLimit(1, 0)}},
		"WithRateLimitAction":  {[]wsroom.Option{wsroom.WithRateLimitAction(wsroom.Disconnect)}, []wsroom.Option{wsroom.WithRateLimitAction(-1), wsroom.WithRateLimitAction(9)}},
		"WithBadJSON":          {[]wsroom.Option{wsroom.WithBadJSON(wsroom.KeepOpen)}, []wsroom.Option{wsroom.WithBadJSON(-1), wsroom.WithBadJSON(9)}},
		"WithRejectMode":       {[]wsroom.Option{wsroom.WithRejectMode(wsroom.CloseFrame)}, []wsroom.Option{wsroom.WithRejectMode(-1), wsroom.WithRejectMode(9)}},
		"WithOutage":           {[]wsroom.Option{wsroom.WithOutage(wsroom.DeliverLocally)}, []wsroom.Option{wsroom.WithOutage(-1), wsroom.WithOutage(9)}},
		"WithBrokerBuffer":     {[]wsroom.Option{wsroom.WithBrokerBuffer(most, math.MaxInt64), wsroom.WithBrokerBuffer(1, 1)}, []wsroom.Option{wsroom.WithBrokerBuffer(-1, 1), wsroom.WithBrokerBuffer(1, -1)}},
		"WithName":             {[]wsroom.Option{wsroom.WithName(""), wsroom.WithName("\x00:\xff")}, []wsroom.Option{wsroom.WithName(strings.Repeat("x", 101))}},
		"WithOrigins":          {[]wsroom.Option{wsroom.WithOrigins(), wsroom.WithOrigins("file://")}, []wsroom.Option{wsroom.WithOrigins(""), wsroom.WithOrigins("*")}},
		"WithHosts":            {[]wsroom.Option{wsroom.WithHosts()}, []wsroom.Option{wsroom.WithHosts(""), wsroom.WithHosts("*"), wsroom.WithHosts("file://")}},
		"WithSubprotocols":     {[]wsroom.Option{wsroom.WithSubprotocols()}, []wsroom.Option{wsroom.WithSubprotocols("")}},
		"WithTrustedProxies":   {[]wsroom.Option{wsroom.WithTrustedProxies()}, []wsroom.Option{wsroom.WithTrustedProxies(""), wsroom.WithTrustedProxies("0.0.0.0/0"), wsroom.WithTrustedProxies("::/-1")}},
		"WithJSON":             {[]wsroom.Option{wsroom.WithJSON(json.Marshal, json.Unmarshal)}, []wsroom.Option{wsroom.WithJSON(nil, nil), wsroom.WithJSON(json.Marshal, nil), wsroom.WithJSON(nil, json.Unmarshal)}},
		"WithRoom":             {nil, []wsroom.Option{wsroom.WithRoom(nil)}},
		"WithAuthorize":        {nil, []wsroom.Option{wsroom.WithAuthorize(nil)}},
		"WithLogger":           {[]wsroom.Option{wsroom.WithLogger(slog.New(slog.DiscardHandler))}, []wsroom.Option{wsroom.WithLogger(nil)}},
		"WithObserver":         {nil, []wsroom.Option{wsroom.WithObserver(nil)}},
		"WithBroker":           {[]wsroom.Option{someBroker}, []wsroom.Option{wsroom.WithBroker(nil)}},
		"WithIdentity":         {nil, []wsroom.Option{wsroom.WithIdentity(nil)}},
		"WithPresenceStore":    {nil, []wsroom.Option{wsroom.WithPresenceStore(nil)}},
		"OnConnect":            {nil, []wsroom.Option{wsroom.OnConnect(nil)}},
		"OnClose":              {nil, []wsroom.Option{wsroom.OnClose(nil)}},
		"OnText":               {nil, []wsroom.Option{wsroom.OnText(nil)}},
		"OnBinary":             {nil, []wsroom.Option{wsroom.OnBinary(nil)}},
		"OnJSON":               {nil, []wsroom.Option{wsroom.OnJSON[int](nil)}},
		"Serve":                {nil, []wsroom.Option{wsroom.Serve(nil)}},
		"OnJoin":               {nil, []wsroom.Option{wsroom.OnJoin(nil)}},
		"OnLeave":              {nil, []wsroom.Option{wsroom.OnLeave(nil)}},
		"OnDrop":               {nil, []wsroom.Option{wsroom.OnDrop(nil)}},
		"OnExpire":             {nil, []wsroom.Option{wsroom.OnExpire(nil)}},
		"OnGap":                {nil, []wsroom.Option{wsroom.OnGap(nil)}},
		"OnMemberJoin":         {nil, []wsroom.Option{wsroom.OnMemberJoin(nil)}},
		"OnMemberLeave":        {nil, []wsroom.Option{wsroom.OnMemberLeave(nil)}},
		"a nil Option":         {[]wsroom.Option{nil}, nil},
	} {
		for _, opt := range values.wrong {
			if got := mistake(append(beside[name], opt)...); !strings.Contains(got, name) {
				t.Errorf("%s: New said %q", name, got)
			}
		}
		for i, opt := range values.fine {
			t.Run(fmt.Sprint(name, " ", i), func(t *testing.T) {
				opts := append(beside[name], kit.Echo(), opt)
				if got := mistake(opts...); got != "" {
					t.Fatalf("New said %q", got)
				}
				synctest.Test(t, func(t *testing.T) { wantRoundTrip(t, wsroom.New(opts...)) })
			})
		}
	}
}

// mistake returns what New panics with.
func mistake(opts ...wsroom.Option) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	wsroom.New(opts...)
	return ""
}

func wantRoundTrip(t *testing.T, hub *wsroom.Hub) {
	c := wsroomtest.Dial(t, hub, "/a")
	c.SendText("hello")
	c.ExpectText("hello")
	hub.SendTextToRoom("/a", "all")
	c.ExpectText("all")
	kit.Shutdown(t, hub)
}

// What the application answers a request with reaches the client as something that HTTP and WebSocket know.
func TestRefusalsOfOddValues(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		retry  string
		body   string
		code   websocket.StatusCode
	}{
		{(*wsroom.StatusError)(nil), 500, "", "Internal Server Error\n", 1011},
		{fmt.Errorf("wrapped: %w", (*wsroom.StatusError)(nil)), 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: -1}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: 101}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: 200}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: 1000}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: math.MaxInt}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: math.MinInt}, 500, "", "Internal Server Error\n", 1011},
		{&wsroom.StatusError{Status: 599}, 599, "", "\n", 1011},
		{&wsroom.StatusError{Status: 429, RetryAfter: math.MaxInt64}, 429, "9223372037", "Too Many Requests\n", 4429},
		{&wsroom.StatusError{Status: 429, RetryAfter: math.MinInt64}, 429, "", "Too Many Requests\n", 4429},
		{&wsroom.StatusError{Status: 429, RetryAfter: 1}, 429, "1", "Too Many Requests\n", 4429},
		{&wsroom.StatusError{Status: 429, RetryAfter: time.Second}, 429, "1", "Too Many Requests\n", 4429},
		{&wsroom.StatusError{Status: 429, RetryAfter: time.Second + 1}, 429, "2", "Too Many Requests\n", 4429},
		{&wsroom.StatusError{Status: 401, Message: "a\r\nX-Evil: 1\r\n\r\n\x00"}, 401, "", "a\r\nX-Evil: 1\r\n\r\n\x00\n", 4401},
		{&wsroom.StatusError{Status: 401, Message: strings.Repeat("x", 1<<16)}, 401, "", strings.Repeat("x", 1<<16) + "\n", 4401},
		{wsroom.Until(time.Unix(-1<<62, 0)), 401, "", "Unauthorized\n", 4401},
		{wsroom.Until(time.Unix(1, 0)), 401, "", "Unauthorized\n", 4401},
	} {
		asked := map[string]wsroom.Option{"authorize": wsroom.WithAuthorize(func(*http.Request, string) error { return test.err })}
		if errors.As(test.err, new(*wsroom.StatusError)) {
			asked["room"] = wsroom.WithRoom(func(*http.Request) (string, error) { return "", test.err })
		}
		for cause, opt := range asked {
			hub := wsroom.New(opt, wsroom.WithLogger(slog.New(slog.NewJSONHandler(&kit.LockedBuffer{}, nil))))
			p := kit.Request(t, kit.Serve(t, hub), kit.UpgradeRequest("/"))
			if p.Res.StatusCode != test.status || p.Res.Header.Get("Retry-After") != test.retry || p.Body != test.body || p.Res.Header.Get("X-Evil") != "" {
				t.Errorf("%#v: got %d, Retry-After %q, %q", test.err, p.Res.StatusCode, p.Res.Header.Get("Retry-After"), kit.Short(p.Body))
			}
			if got := hub.Causes().Refused; got[cause] != 1 || len(got) != 1 {
				t.Errorf("%#v: counted %v", test.err, got)
			}
			told := wsroom.New(opt, wsroom.WithRejectMode(wsroom.CloseFrame))
			if code, _ := kit.Request(t, kit.Serve(t, told), kit.UpgradeRequest("/")).CloseCode(); code != int(test.code) {
				t.Errorf("%#v: close code %d", test.err, code)
			}
		}
	}
	for _, until := range []time.Time{{}, time.Unix(1<<62, 0), time.Unix(1<<40, 0)} {
		hub := wsroom.New(kit.Echo(), wsroom.WithAuthorize(func(*http.Request, string) error { return wsroom.Until(until) }),
			wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { return time.Time{}, nil }))
		c := kit.Dial(t, kit.Serve(t, hub), "/")
		c.SendText("x")
		c.ExpectText("x")
		c.CloseNow()
	}
}

// A nil *StatusError that OnConnect returns is an error like any other.
func TestNilErrorOfOnConnectEndsTheConnection(t *testing.T) {
	ends := make(chan error, 1)
	hub := wsroom.New(wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return (*wsroom.StatusError)(nil) }),
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err }))
	kit.Dial(t, kit.Serve(t, hub), "/").ExpectClose(websocket.StatusInternalError)
	if err := kit.Await(t, ends, "OnClose"); err.Error() == "" {
		t.Error(err)
	}
}
