package frameworks

import (
	"net/http"

	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"
	"github.com/urfave/negroni/v3"
	"github.com/wsroom/wsroom"
)

// mounts are the ways to mount a hub that docs/rooms.md shows.
var mounts = map[string]func(hub *wsroom.Hub) http.Handler{
	`r.Handle("/chat/{room}", hub)`: func(hub *wsroom.Hub) http.Handler {
		r := mux.NewRouter()
		r.Handle("/chat/{room}", hub)
		return r
	},
	`r.SetPathValue("room", mux.Vars(r)["room"]); r.Pattern, _ = mux.CurrentRoute(r).GetPathTemplate()`: func(hub *wsroom.Hub) http.Handler {
		router := mux.NewRouter()
		router.HandleFunc("/chat/{room}", func(w http.ResponseWriter, r *http.Request) {
			r.SetPathValue("room", mux.Vars(r)["room"])
			r.Pattern, _ = mux.CurrentRoute(r).GetPathTemplate()
			hub.ServeHTTP(w, r)
		})
		return router
	},
	`router.Handler("GET", "/chat/:room", hub)`: func(hub *wsroom.Hub) http.Handler {
		router := httprouter.New()
		router.Handler("GET", "/chat/:room", hub)
		return router
	},
	`r.SetPathValue("room", p.ByName("room")); r.Pattern = "/chat/:room"`: func(hub *wsroom.Hub) http.Handler {
		router := httprouter.New()
		router.GET("/chat/:room", func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
			r.SetPathValue("room", p.ByName("room"))
			r.Pattern = "/chat/:room"
			hub.ServeHTTP(w, r)
		})
		return router
	},
	`mux.Handle("/chat/{room}", hub); n.UseHandler(mux)`: func(hub *wsroom.Hub) http.Handler {
		n := negroni.New(negroni.NewRecovery())
		mux := http.NewServeMux()
		mux.Handle("/chat/{room}", hub)
		n.UseHandler(mux)
		return n
	},
}
