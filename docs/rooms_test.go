package docs_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// roomFuncs are the last three columns of the page's tables.
var roomFuncs = []wsroom.RoomFunc{wsroom.ByPath, wsroom.ByPathValue("room"), wsroom.ByPattern}

var routers = map[string]func(pattern string, h http.Handler) http.Handler{
	"ServeMux": func(pattern string, h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle(pattern, h)
		return mux
	},
	"chi": func(pattern string, h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Handle(pattern, h)
		return r
	},
}

// roomCell returns what a cell says: the room as code, or what the answer is instead.
func roomCell(t *testing.T, h func(http.Handler) http.Handler, by wsroom.RoomFunc, target string) string {
	t.Helper()
	rooms := make(chan string, 1)
	hub := wsroom.New(wsroom.WithRoom(by), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		rooms <- c.Room()
		return nil
	}))
	res := knock(t, serve(t, h(hub), hub), target)
	defer res.Body.Close()
	switch status := res.StatusCode; {
	case status >= 300 && status < 400: // which one depends on Go's version
		return "redirect"
	case status != http.StatusSwitchingProtocols:
		return fmt.Sprint(status)
	}
	return "`" + await(t, rooms, "OnConnect") + "`"
}

func TestRoomsAreThoseOfThePage(t *testing.T) {
	for _, row := range table(t, "rooms.md", 0) {
		names := []string{row[0]}
		if row[0] == "both" {
			names = []string{"ServeMux", "chi"}
		}
		for _, name := range names {
			route := routers[name]
			if route == nil {
				t.Fatalf("no router %q", name)
			}
			for i, by := range roomFuncs {
				mount := func(h http.Handler) http.Handler { return route(code(row[1]), h) }
				if got := roomCell(t, mount, by, code(row[2])); got != row[3+i] {
					t.Errorf("%s, %s, %s: column %d says %s, and it is %s", name, row[1], row[2], 3+i, row[3+i], got)
				}
			}
		}
	}
}

// mountings are the rows of the page's second table.
var mountings = map[string]func(h http.Handler) http.Handler{
	`http.StripPrefix("/api", mux)`: func(h http.Handler) http.Handler {
		return http.StripPrefix("/api", routers["ServeMux"]("/chat/{room}", h))
	},
	`r.Route("/api", …)`: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Route("/api", func(r chi.Router) { r.Handle("/chat/{room}", h) })
		return r
	},
	`r.Mount("/api", sub)`: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Mount("/api", routers["chi"]("/chat/{room}", h))
		return r
	},
	`r.Mount("/api/chat", hub)`: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Mount("/api/chat", h)
		return r
	},
	`hub.Middleware(mux)`: func(h http.Handler) http.Handler {
		return h.(*wsroom.Hub).Middleware(http.NewServeMux())
	},
	`r.Use(hub.Middleware)`: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(h.(*wsroom.Hub).Middleware)
		r.Get("/api/chat/{room}", http.NotFound)
		return r
	},
	`r.With(hub.Middleware)`: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.With(h.(*wsroom.Hub).Middleware).Get("/api/chat/{room}", http.NotFound)
		return r
	},
}

func TestMountedRoomsAreThoseOfThePage(t *testing.T) {
	rows := table(t, "rooms.md", 1)
	for _, row := range rows {
		mount := mountings[code(row[0])]
		if mount == nil {
			t.Fatalf("no such mounting: %s", row[0])
		}
		for i, by := range roomFuncs {
			if got := roomCell(t, mount, by, "/api/chat/general"); got != row[1+i] {
				t.Errorf("%s: column %d says %s, and it is %s", row[0], 1+i, row[1+i], got)
			}
		}
	}
	if len(rows) != len(mountings) {
		t.Errorf("%d rows, %d mountings", len(rows), len(mountings))
	}
}

// A room by a function of one's own, as the page has it.
func TestRoomOfOnesOwn(t *testing.T) {
	hub := wsroom.New(
		wsroom.WithRoom(func(r *http.Request) (string, error) {
			board := r.PathValue("board")
			if !boards[board] {
				return "", &wsroom.StatusError{Status: http.StatusNotFound, Message: "no such board"}
			}
			return board + "/" + r.FormValue("lang"), nil
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /boards/{board}", hub)
	srv := serve(t, mux, hub)
	for target, status := range map[string]int{"/boards/plan?lang=de": 101, "/boards/secret": 404} {
		res := knock(t, srv, target)
		if res.StatusCode != status {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, status)
		}
		defer res.Body.Close()
	}
	if got := fmt.Sprint(hub.Rooms()); got != "[plan/de]" {
		t.Errorf("rooms: %s", got)
	}
}

var boards = map[string]bool{"plan": true}

// Each of the page's two hubs gets its own sockets, and no others.
func TestHubsBehindEachOther(t *testing.T) {
	below := func(prefix string) wsroom.RoomFunc {
		return func(r *http.Request) (string, error) {
			if !strings.HasPrefix(r.URL.Path, prefix) {
				return "", wsroom.ErrPass // not mine
			}
			return wsroom.ByPath(r)
		}
	}
	chat := wsroom.New(wsroom.WithRoom(below("/chat/")))
	game := wsroom.New(wsroom.WithRoom(below("/game/")))
	handler := chat.Middleware(game.Middleware(http.NotFoundHandler()))

	wsroomtest.CheckHub(t, chat)
	wsroomtest.CheckHub(t, game)
	wsroomtest.Dial(t, handler, "/chat/1")
	wsroomtest.DialN(t, 2, handler, "/game/1")
	wsroomtest.Refused(t, handler, "/other", http.StatusNotFound)
	if chat.Len() != 1 || game.Len() != 2 {
		t.Errorf("the hubs have %d and %d connections", chat.Len(), game.Len())
	}
}
