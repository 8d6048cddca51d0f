package frameworks

import (
	"io"
	"net/http"

	"github.com/NYTimes/gziphandler"
	sentryhttp "github.com/getsentry/sentry-go/http"
	"github.com/gorilla/handlers"
	"github.com/justinas/alice"
	"github.com/klauspost/compress/gzhttp"
	"github.com/urfave/negroni/v3"
	"github.com/wsroom/wsroom"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// wraps are the rows of the table in docs/middleware.md.
var wraps = map[string]func(hub *wsroom.Hub) http.Handler{
	`otelhttp.NewHandler(hub, "chat")`: func(hub *wsroom.Hub) http.Handler {
		return otelhttp.NewHandler(hub, "chat")
	},
	`sentryhttp.New(sentryhttp.Options{Repanic: true}).Handle(hub)`: func(hub *wsroom.Hub) http.Handler {
		return sentryhttp.New(sentryhttp.Options{Repanic: true}).Handle(hub)
	},
	`gziphandler.GzipHandler(hub)`: func(hub *wsroom.Hub) http.Handler {
		return gziphandler.GzipHandler(hub)
	},
	`gzhttp.GzipHandler(hub)`: func(hub *wsroom.Hub) http.Handler {
		return gzhttp.GzipHandler(hub)
	},
	`handlers.CombinedLoggingHandler(log, hub)`: func(hub *wsroom.Hub) http.Handler {
		log := io.Discard
		return handlers.CombinedLoggingHandler(log, hub)
	},
	`handlers.CompressHandler(hub)`: func(hub *wsroom.Hub) http.Handler {
		return handlers.CompressHandler(hub)
	},
	`handlers.RecoveryHandler()(hub)`: func(hub *wsroom.Hub) http.Handler {
		return handlers.RecoveryHandler()(hub)
	},
	`handlers.ProxyHeaders(hub)`: func(hub *wsroom.Hub) http.Handler {
		return handlers.ProxyHeaders(hub)
	},
	`handlers.CORS(handlers.AllowedOrigins([]string{"https://a.example"}))(hub)`: func(hub *wsroom.Hub) http.Handler {
		return handlers.CORS(handlers.AllowedOrigins([]string{"https://a.example"}))(hub)
	},
	`alice.New(handlers.ProxyHeaders, otelhttp.NewMiddleware("chat")).Then(hub)`: func(hub *wsroom.Hub) http.Handler {
		return alice.New(handlers.ProxyHeaders, otelhttp.NewMiddleware("chat")).Then(hub)
	},
	`negroni.New(negroni.NewRecovery(), negroni.NewLogger(), negroni.Wrap(hub))`: func(hub *wsroom.Hub) http.Handler {
		return negroni.New(negroni.NewRecovery(), negroni.NewLogger(), negroni.Wrap(hub))
	},
}
