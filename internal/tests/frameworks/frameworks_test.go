// Package frameworks mounts hubs in the routers and frameworks that people use, in their current releases, and holds
// the tables of docs/rooms.md and docs/middleware.md to what they do.
package frameworks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// rows returns the cells of the rows of a page's table, which is the first one below the line that begins so.
func rows(t *testing.T, page, below string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+below)
	if !found {
		t.Fatalf("%s has no line that begins with %q", page, below)
	}
	within := false
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if within {
				break
			}
			continue
		}
		within = true
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), " | ") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no such table", page)
	}
	return rows[2:]
}

// checkSource checks that a file of this package has the code, in which "; " stands for the end of a line.
func checkSource(t *testing.T, code string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := regexp.MustCompile(`\n\s*`).ReplaceAllString(string(text), "; ")
		if strings.Contains(strings.ReplaceAll(lines, "`"+code+"`", ""), code) {
			return
		}
	}
	t.Errorf("nothing runs %q", code)
}

// outcome is what becomes of a request for a socket: the room's name, or the status. A client that was let in
// has said something, was answered, and was sent away by Shutdown.
func outcome(t *testing.T, target string, mount func(*wsroom.Hub) http.Handler, opts ...wsroom.Option) string {
	t.Helper()
	ended := make(chan error, 1)
	hub := wsroom.New(append(opts,
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(c.Room() + ": " + text)
			}
		}),
		wsroom.OnClose(func(_ *wsroom.Conn, cause error) { ended <- cause }),
	)...)
	srv := httptest.NewServer(mount(hub))
	defer srv.Close()
	defer hub.Shutdown(t.Context())

	ws, res, err := websocket.Dial(t.Context(), srv.URL+target, nil)
	if res == nil {
		t.Fatal(err)
	}
	if err != nil {
		return fmt.Sprint(res.StatusCode)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, answer, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	room, found := strings.CutSuffix(string(answer), ": hello")
	if !found {
		t.Errorf("answered %q", answer)
	}
	go hub.Shutdown(t.Context())
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("at the shutdown: %v", err)
	}
	if cause := <-ended; cause != wsroom.ErrShutdown {
		t.Errorf("ended with %v", cause)
	}
	return room
}

// roomFuncs are the columns of the table, and their values as wanted where they aren't a status.
var roomFuncs = []struct {
	name string
	by   wsroom.RoomFunc
}{{"ByPath", wsroom.ByPath}, {"ByPathValue", wsroom.ByPathValue("room")}, {"ByPattern", wsroom.ByPattern}}

// Every row of the page on rooms is what happens in that framework, and each framework has its rows.
func TestRoomsInFrameworks(t *testing.T) {
	var documented []string
	for _, row := range rows(t, "rooms.md", "## Other routers") {
		code := strings.Trim(row[1], "`")
		documented = append(documented, code)
		mount := mounts[code]
		if mount == nil {
			t.Errorf("%s: the test has no %q", row[0], code)
			continue
		}
		checkSource(t, code)
		for i, column := range roomFuncs {
			t.Run(row[0]+" "+column.name, func(t *testing.T) {
				want := strings.Trim(row[2+i], "`")
				if got := outcome(t, "/chat/general", mount, wsroom.WithRoom(column.by)); got != want {
					t.Errorf("%s: the page says %s, and it is %s", code, want, got)
				}
				if !strings.Contains(want, "general") {
					return
				}
				want = strings.ReplaceAll(want, "general", "café")
				if got := outcome(t, "/chat/caf%C3%A9", mount, wsroom.WithRoom(column.by)); got != want {
					t.Errorf("%s: want %s, and it is %s", code, want, got)
				}
			})
		}
	}
	for code := range mounts {
		if !slices.Contains(documented, code) {
			t.Errorf("the page lacks %q", code)
		}
	}
}

// Every row of the page on middleware is what happens behind that middleware.
func TestOthersMiddleware(t *testing.T) {
	var documented []string
	for _, row := range rows(t, "middleware.md", "## Other people's middleware") {
		code := strings.Trim(row[0], "`")
		documented = append(documented, code)
		wrap := wraps[code]
		if wrap == nil {
			t.Errorf("the test has no %q", code)
			continue
		}
		checkSource(t, code)
		t.Run(code, func(t *testing.T) {
			got := outcome(t, "/a", wrap)
			if want := strings.Trim(row[1], "`"); got != map[string]string{"works": "/a"}[want] && got != want {
				t.Errorf("the page says %s, and it is %s", want, got)
			}
		})
	}
	for code := range wraps {
		if !slices.Contains(documented, code) {
			t.Errorf("the page lacks %q", code)
		}
	}
}
