package attack_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// document is what applications decode into.
type document struct {
	ID    int
	Name  string
	Tags  []string
	Score float64
	More  map[string]any
}

// hostileJSON are documents of up to 64 KiB, with whether they are a document and whether they are
// JSON at all.
func hostileJSON() map[string]struct {
	text           string
	document, json bool
} {
	type doc = struct {
		text           string
		document, json bool
	}
	nested := func(open, end string, n int) string { return strings.Repeat(open, n) + strings.Repeat(end, n) }
	long := func(s string) string { return strings.Repeat(s, 64_000/len(s)) }
	return map[string]doc{
		"arrays, 10,000 deep":     {nested("[", "]", 10_000), false, true},
		"arrays, 10,001 deep":     {nested("[", "]", 10_001), false, false},
		"arrays, endlessly deep":  {long("["), false, false},
		"objects, endlessly deep": {long(`{"a":`), false, false},
		"deep in a member":        {`{"More":{"a":` + nested("[", "]", 9_000) + `}}`, true, true},
		"a number of 64,000":      {`{"Score":` + long("9") + `}`, false, false},
		"a long fraction":         {`{"Score":0.` + long("3") + `}`, true, true},
		"a great exponent":        {`{"Score":1e999999999}`, false, false},
		"an integer too long":     {`{"ID":9223372036854775808}`, false, true},
		"an integer that isn't":   {`{"ID":1.5}`, false, true},
		"the same key, often":     {`{` + long(`"ID":1,`) + `"ID":2}`, true, true},
		"many keys":               {manyKeys(4000), true, true},
		"keys in any case":        {`{"id":1,"Id":2,"iD":3}`, true, true},
		"another document behind": {`{"ID":1}{"ID":2}`, false, false},
		"garbage behind":          {`{"ID":1} x`, false, false},
		"NUL behind":              {"{\"ID\":1}\x00", false, false},
		"a byte order mark":       {"\ufeff{}", false, false},
		"nothing":                 {"", false, false},
		"blanks":                  {long(" \t\r\n"), false, false},
		"a string for a number":   {`{"ID":"1"}`, false, true},
		"an object for a string":  {`{"Name":{}}`, false, true},
		"an array":                {`[{"ID":1}]`, false, true},
		"null":                    {`null`, true, true},
		"NaN":                     {`{"Score":NaN}`, false, false},
		"a comment":               {`{"ID":1/**/}`, false, false},
		"a comma too many":        {`{"ID":1,}`, false, false},
		"lone surrogates":         {`{"Name":"` + long(`\ud800`) + `"}`, true, true},
		"escapes":                 {`{"Name":"` + long(`\u0000`) + `"}`, true, true},
		"a control character":     {"{\"Name\":\"\x01\"}", false, false},
		"an unended string":       {`{"Name":"` + long("x"), false, false},
		"many elements":           {`{"Tags":[` + long(`"",`) + `""]}`, true, true},
		"__proto__":               {`{"__proto__":{"ID":1}}`, true, true},
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	return `{"More":{` + b.String() + `"end":0}}`
}

// What isn't the JSON that a callback takes is a *DecodeError, and no document takes long. Of a key
// that is there twice the last one counts, as encoding/json has it.
func TestHostileJSON(t *testing.T) {
	testHostileJSON[document](t, func(d document) bool { return d.ID == 0 || d.ID == 2 || d.ID == 3 })
	testHostileJSON[any](t, func(any) bool { return true })
}

func testHostileJSON[T any](t *testing.T, ok func(T) bool) {
	t.Helper()
	got := make(chan error, 1)
	hub := wsroom.New(wsroom.WithBadJSON(wsroom.KeepOpen), wsroom.OnJSON(func(_ *wsroom.Conn, v T, err error) {
		if err == nil && !ok(v) {
			err = fmt.Errorf("decoded as %v", v)
		}
		got <- err
	}))
	c := kit.DialRaw(t, kit.Serve(t, hub), "/a")
	for name, doc := range hostileJSON() {
		want := doc.json
		if _, isDocument := any(*new(T)).(document); isDocument {
			want = doc.document
		}
		times := kit.Scale(5, 100)
		most := time.Duration(times)*5*time.Millisecond + 20*time.Millisecond
		spent := most + 1
		for try := 0; try < 3 && spent > most; try++ { // on a busy machine the collector's work varies
			watch := startWatch()
			for range times {
				c.Frame(0x81, doc.text)
				err := kit.Await(t, got, name)
				if decode := (*wsroom.DecodeError)(nil); want && err != nil || !want && !errors.As(err, &decode) {
					t.Fatalf("%s: error %v, want one: %t", name, err, !want)
				}
			}
			spent = time.Duration(startWatch().own-watch.own) * 10 * time.Millisecond // a tick
		}
		if spent > most && !kit.UnderRace() {
			t.Errorf("%s: %v of processor time for %d messages", name, spent, times)
		}
	}
	c.Close()
	kit.Await(t, got, "the end")
}

// Whatever strangers write in what they send, no log line holds a raw control byte or a token of
// theirs.
func TestHostileLogLines(t *testing.T) {
	const token = "SECRET-TOKEN"
	const nasty = "\r\n\x1b[31mlevel=ERROR msg=forged\x00"
	for name, handler := range map[string]func(b *kit.LockedBuffer) slog.Handler{
		"text": func(b *kit.LockedBuffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *kit.LockedBuffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var lines kit.LockedBuffer
			hub := wsroom.New(wsroom.WithLogger(slog.New(handler(&lines))), wsroom.WithSubprotocols("chat"),
				wsroom.WithAuthorize(func(r *http.Request, room string) error {
					if strings.HasPrefix(room, "/500") {
						return &wsroom.StatusError{Status: 500}
					}
					return nil
				}),
				wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
					if err == nil {
						panic(strings.TrimSuffix(text, token))
					}
				}))
			srv := kit.Serve(t, hub)
			var wg sync.WaitGroup
			for _, room := range []string{"/a", "/500", "/\u2028\u202e\ufeff" + "a", "/a%0d%0a", "/%1b[31m"} {
				for _, header := range []string{
					"Origin: http://" + token + ".example", "Authorization: Bearer " + token, "Cookie: session=" + token,
					"Sec-WebSocket-Protocol: chat, bearer." + token, "User-Agent: \x1b[31m" + token, "X-Forwarded-For: " + token,
				} {
					wg.Go(func() {
						p := kit.Request(t, srv, kit.UpgradeRequest(room+"?token="+token+"&x=%0d%0a%1b", header))
						if p.Res.StatusCode == 101 {
							p.Write(kit.RawFrame(0x81, nasty+token))
							p.Write(kit.RawFrame(0x88, "\x0f\xa0"+nasty+token))
							p.CloseFrame()
						}
						p.Close()
					})
				}
			}
			wg.Wait()
			kit.NothingLeft(t, hub)
			if !strings.Contains(lines.String(), "callback panicked") || !strings.Contains(lines.String(), "can't be upgraded") {
				t.Errorf("logged: %q", lines.String())
			}
			for line := range strings.Lines(lines.String()) {
				if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
					t.Errorf("a control character in %q", line)
				}
				if strings.Contains(line, token) || !strings.Contains(line, "wsroom: ") {
					t.Errorf("logged: %q", line)
				}
			}
		})
	}
}

// Peers whose line is dead without a word are each ended once, in time.
func TestHostileSilence(t *testing.T) {
	const n = 100
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		for range n {
			go s.DialRaw("/a").CloseFrame() // takes what comes, as the kernel does, and answers nothing
		}
		for range n {
			e := <-ends
			if !errors.Is(e.Err, wsroom.ErrHeartbeat) {
				t.Errorf("cause %v", e.Err)
			}
			kit.WantBetween(t, "ended", e.At, 0, 25*time.Second+10*time.Second+time.Second)
		}
		time.Sleep(time.Hour)
		if len(ends) > 0 {
			t.Errorf("%d ends too many", len(ends))
		}
	})
}
