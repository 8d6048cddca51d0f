package resume_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/resume"
)

func header(entries ...string) http.Header {
	return http.Header{"Sec-Websocket-Protocol": {"wsroom.v1, " + strings.Join(entries, ", ")}}
}

// tokenOf returns the token that a hub of that name and key gives to a client of the room.
func tokenOf(t testing.TB, hub, room string, key [][]byte, claim resume.Claim) string {
	t.Helper()
	s := resume.NewSession(resume.NewKey(hub, key), "", nil, 0, new(history.Limits))
	c := newClient(t)
	e := &resume.Enter{Room: 1, Name: room, Number: 1, At: claim.Floor, Was: -1, Claim: claim}
	c.read(s.Append(nil, []*frame.Message{{Tag: e}}, false))
	return c.named(room).token
}

// claimOf returns what a hub makes of these offers for the room.
func claimOf(hub, room string, keys [][]byte, offers ...string) resume.Claimed {
	_, _, read := resume.Offered(header(offers...), nil)
	return resume.NewSession(resume.NewKey(hub, keys), "", read, time.Second, new(history.Limits)).Claim(room)
}

var claim = resume.Claim{Log: 0xfeedfacecafebeef, Floor: history.Position{Stream: 1 << 40, Letter: 3}, Holder: 77}

const offered = ".1099511627776-3.5"

// A token says what it was given for, under each of the keys.
func TestTokenIsUnderstood(t *testing.T) {
	for i, key := range keys {
		token := tokenOf(t, "hub", "/room", [][]byte{key}, claim)
		if len(token) != 68 {
			t.Errorf("a token of %d characters", len(token))
		}
		got := claimOf("hub", "/room", keys, "resume."+token+offered)
		want := resume.Claimed{Valid: true, Claim: claim, At: claim.Floor, N: 5}
		if got != want {
			t.Errorf("key %d: %+v, want %+v", i, got, want)
		}
	}
}

// A token of which any bit is changed, which is cut, or which is for another room, hub or key, is worth nothing.
// Nor is a position before the client came.
func TestTokenIsForged(t *testing.T) {
	token := tokenOf(t, "hub", "/room", keys, claim)
	p, _ := base64.RawURLEncoding.DecodeString(token)
	for bit := range 8 * len(p) {
		q := slices.Clone(p)
		q[bit/8] ^= 1 << (bit % 8)
		if got := claimOf("hub", "/room", keys, "resume."+base64.RawURLEncoding.EncodeToString(q)+offered); got.Valid {
			t.Errorf("with the bit %d flipped: %+v", bit, got)
		}
	}

	other := [][]byte{[]byte("another key of thirty-two bytes.")}
	for what, got := range map[string]resume.Claimed{
		"another hub":   claimOf("hub2", "/room", keys, "resume."+token+offered),
		"another room":  claimOf("hub", "/room2", keys, "resume."+token+offered),
		"another key":   claimOf("hub", "/room", other, "resume."+token+offered),
		"cut":           claimOf("hub", "/room", keys, "resume."+token[:67]+offered),
		"longer":        claimOf("hub", "/room", keys, "resume."+token+"AAAA"+offered),
		"padded":        claimOf("hub", "/room", keys, "resume."+token+"="+offered),
		"before it":     claimOf("hub", "/room", keys, "resume."+token+".1099511627776-2.5"),
		"long before":   claimOf("hub", "/room", keys, "resume."+token+".5.5"),
		"no position":   claimOf("hub", "/room", keys, "resume."+token+"..5"),
		"no number":     claimOf("hub", "/room", keys, "resume."+token+".1099511627776-3."),
		"negative":      claimOf("hub", "/room", keys, "resume."+token+".1099511627776-3.-1"),
		"a sign":        claimOf("hub", "/room", keys, "resume."+token+".+1099511627776-3.1"),
		"too large":     claimOf("hub", "/room", keys, "resume."+token+".1099511627776-3.18446744073709551616"),
		"more letters":  claimOf("hub", "/room", keys, "resume."+token+".1099511627776-3-3.1"),
		"nothing":       claimOf("hub", "/room", keys, "resume."),
		"another case":  claimOf("hub", "/room", keys, "RESUME."+token+offered),
		"without a dot": claimOf("hub", "/room", keys, "resume."+token),
	} {
		if got.Valid {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// The first 64 positions count, and the first of several for one room.
func TestOffersAreBounded(t *testing.T) {
	token := tokenOf(t, "hub", "/room", keys, claim)
	var offers []string
	for i := range 64 {
		offers = append(offers, fmt.Sprint("resume.x", i, ".1.1"))
	}
	if got := claimOf("hub", "/room", keys, append(offers, "resume."+token+offered)...); got.Index != -1 {
		t.Errorf("the 65th counts: %+v", got)
	}
	if got := claimOf("hub", "/room", keys, append(offers[1:], "resume."+token+offered)...); got.Index != 63 || !got.Valid {
		t.Errorf("the 64th doesn't count: %+v", got)
	}

	_, _, read := resume.Offered(header("resume."+token+".1099511627776-3.1", "resume."+token+".1099511627776-3.2"), nil)
	s := resume.NewSession(resume.NewKey("hub", keys), "", read, 0, new(history.Limits))
	if got := s.Claim("/room"); got.Index != 0 || got.N != 1 {
		t.Errorf("of two for one room: %+v", got)
	}
	if got := s.Claim("/room"); got.Index != -1 {
		t.Errorf("the second time: %+v", got)
	}
}

// A client that presents a position of another room has what it was sent there, if both are of one connection, or
// if it has resumed that room.
func TestHas(t *testing.T) {
	token := tokenOf(t, "hub", "a", keys, claim)
	_, _, read := resume.Offered(header("resume."+token+offered), nil)
	session := func() *resume.Session {
		return resume.NewSession(resume.NewKey("hub", keys), "", read, 0, new(history.Limits))
	}
	s := session()
	if s.Has("b", 77) != resume.HasNot || s.Has("a", 77) != resume.HasAll || s.Has("a", 78) != resume.HasMaybe {
		t.Error("before it comes back")
	}
	s.Claim("a")
	if s.Has("a", 77) != resume.HasAll || s.Has("a", 78) != resume.HasMaybe {
		t.Error("while it comes back")
	}
	s.SetEntered("a", true, 77)
	if s.Has("a", 78) != resume.HasAll {
		t.Error("it has resumed the room")
	}
	if tags := s.Holders(); !slices.Equal(tags, []uint64{77}) {
		t.Errorf("it may come back as %d", tags)
	}

	s = session()
	s.Claim("a")
	s.SetEntered("a", false, 77)
	if s.Has("a", 77) != resume.HasNot || len(s.Holders()) > 0 {
		t.Error("it came back to the room, and wasn't resumed there")
	}
}

// What is read of a header is bounded, and names an entry of it.
func FuzzOffered(f *testing.F) {
	token := tokenOf(f, "hub", "/room", keys, claim)
	f.Add("wsroom.v1, chat, resume."+token+offered, "chat")
	f.Add("chat+wsroom.v1,CHAT+WSROOM.V1", "chat")
	f.Add("resume...,resume.a.1.1,,wsroom.v1+wsroom.v1", "wsroom.v1")
	f.Add(strings.Repeat("resume.a.1-1.1,", 100)+"wsroom.v1", "")
	f.Fuzz(func(t *testing.T, line, name string) {
		h := http.Header{"Sec-Websocket-Protocol": {line}}
		chosen, own, offers := resume.Offered(h, []string{name})
		if chosen != "" && !strings.Contains(line, chosen) || own != "" && own != name || len(offers) > 64 {
			t.Fatalf("chosen %q, own %q, %d offers", chosen, own, len(offers))
		}
		if chosen != "" && !resume.IsReserved(chosen) {
			t.Errorf("%q isn't reserved", chosen)
		}
		s := resume.NewSession(resume.NewKey("hub", keys), own, offers, 0, new(history.Limits))
		if got := s.Claim("/room"); got.Valid && !strings.Contains(line, token) {
			t.Errorf("%q gives %+v", line, got)
		}
	})
}
