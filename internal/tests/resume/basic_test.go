package resume_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// newHub returns a hub whose clients say what they want: "join ROOM", "leave ROOM", "me TEXT" (to itself), "others TEXT" (to
// the room of the route without itself).
func newHub(t testing.TB, opts ...wsroom.Option) (hub *wsroom.Hub) {
	t.Helper()
	said := func(c *wsroom.Conn, text string, err error) {
		if err != nil {
			return
		}
		switch verb, rest, _ := strings.Cut(text, " "); verb {
		case "join":
			err = c.Join(rest)
		case "leave":
			err = c.Leave(rest)
		case "me":
			err = c.SendText(rest)
		case "others":
			err = hub.To(c.Room()).Except(c).SendText(rest)
		}
		if err != nil && !errors.Is(err, wsroom.ErrClosed) {
			t.Errorf("%s: %v", text, err)
		}
	}
	hub = wsroom.New(append([]wsroom.Option{wsroom.OnText(said)}, opts...)...)
	return wsroomtest.CheckHub(t, hub)
}

// A client that comes back gets what it has missed, and nothing twice.
func TestResume(t *testing.T) {
	hub := newHub(t, wsroom.WithHistory(100, 1<<20, time.Minute))
	s := serve(t, hub)
	c := newV1(t, "/a")
	if err := c.dial(s, -1); err != nil {
		t.Fatal(err)
	}
	c.until("it is in the room", func() bool { return c.fresh["/a"] == 1 })
	for i := range 3 {
		hub.SendTextToRoom("/a", fmt.Sprint(i))
	}
	c.until("messages come", func() bool { return len(c.got["/a"]) == 3 })
	c.cut()
	for i := range 70 {
		hub.SendTextToRoom("/a", fmt.Sprint(3+i))
	}
	if err := c.dial(s, -1); err != nil {
		t.Fatal(err)
	}
	c.ask(1)
	for i := range 3 {
		hub.SendTextToRoom("/a", fmt.Sprint(73+i))
	}
	c.until("messages come", func() bool { return len(c.got["/a"]) >= 76 })
	var want []string
	for i := range 76 {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(c.got["/a"], want) || c.resumed != 1 || c.fresh["/a"] != 1 || len(c.gaps) > 0 {
		t.Errorf("got %q, resumed %d, fresh %v, gaps %v", c.got, c.resumed, c.fresh, c.gaps)
	}
	t.Log(c.log[:5], c.hello)
	c.cut()
}
