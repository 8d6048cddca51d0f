package admission_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// TestDifferentURLsAreDifferentRooms escapes random paths at random: the same segments are always
// the same room, others never.
func TestDifferentURLsAreDifferentRooms(t *testing.T) {
	var byPath, byValue string
	note := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		byPath, _ = wsroom.ByPath(r)
		name := "*"
		if strings.Contains(r.Pattern, "{rest...}") {
			name = "rest"
		}
		byValue, _ = wsroom.ByPathValue(name)(r)
	})
	routers := map[string]http.Handler{
		"ServeMux": kit.MuxOf("/x/{rest...}", note),
		"chi":      chiOf(func(r chi.Router) { r.Handle("/x/*", note) }),
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	paths, values := newBijection(t), newBijection(t)
	for range 5_000 {
		list := randomSegments(rnd)
		target := "/x/" + escapeAtRandom(rnd, list)
		for name, router := range routers {
			byPath = ""
			router.ServeHTTP(httptest.NewRecorder(), parseRequest(t, target))
			if byPath == "" {
				continue // a redirect
			}
			paths.add(name+" "+target, cleaned(append([]string{"x"}, list...)), byPath)
			values.add(name+" "+target, cleaned(list), byValue)
		}
	}
	if len(paths.rooms) < 1000 {
		t.Errorf("only %d rooms were tried", len(paths.rooms))
	}
}

// bijection checks that each list has a room of its own.
type bijection struct {
	t            *testing.T
	rooms, lists map[string]string // of each other
}

func newBijection(t *testing.T) *bijection {
	return &bijection{t: t, rooms: map[string]string{}, lists: map[string]string{}}
}

func (b *bijection) add(what string, list []string, room string) {
	b.t.Helper()
	key := fmt.Sprintf("%q", list)
	if other, ok := b.lists[room]; ok && other != key {
		b.t.Fatalf("%s: the room %q is that of %s and of %s", what, room, other, key)
	}
	if other, ok := b.rooms[key]; ok && other != room {
		b.t.Fatalf("%s: %s is in the room %q and in %q", what, key, other, room)
	}
	b.lists[room], b.rooms[key] = key, room
}

func randomSegments(rnd *rand.Rand) []string {
	alphabet := []string{"a", "b", "2", "F", "5", "/", "%", "%2F", "%25", ".", "é", "|", " ", "'", "+", ";"}
	list := make([]string, 1+rnd.IntN(3))
	for i := range list {
		for range 1 + rnd.IntN(3) {
			list[i] += alphabet[rnd.IntN(len(alphabet))]
		}
	}
	return list
}

// cleaned drops dot segments, and ".." with what precedes it, as ByPath does.
func cleaned(list []string) []string {
	clean := []string{}
	for _, s := range list {
		switch s {
		case ".":
		case "..":
			clean = clean[:max(0, len(clean)-1)]
		default:
			clean = append(clean, s)
		}
	}
	return clean
}

// escapeAtRandom escapes what must be, and some of what need not.
func escapeAtRandom(rnd *rand.Rand, list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte('/')
		}
		for _, c := range []byte(s) {
			switch {
			case strings.IndexByte("/%?# ", c) >= 0 || rnd.IntN(4) == 0:
				fmt.Fprintf(&b, []string{"%%%02X", "%%%02x"}[rnd.IntN(2)], c)
			default:
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}
