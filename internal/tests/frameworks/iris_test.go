package frameworks

import (
	"net/http"

	"github.com/kataras/iris/v12"
	"github.com/wsroom/wsroom"
)

func init() {
	mount := func(add func(app *iris.Application)) http.Handler {
		app := iris.New()
		app.Logger().SetLevel("disable")
		add(app)
		if err := app.Build(); err != nil {
			panic(err)
		}
		return app
	}
	mounts[`app.Get("/chat/{room}", iris.FromStd(hub))`] = func(hub *wsroom.Hub) http.Handler {
		return mount(func(app *iris.Application) {
			app.Get("/chat/{room}", iris.FromStd(hub))
		})
	}
	mounts[`ctx.Request().SetPathValue("room", ctx.Params().Get("room")); ctx.Request().Pattern = ctx.RouteName()`] = func(hub *wsroom.Hub) http.Handler {
		return mount(func(app *iris.Application) {
			app.Get("/chat/{room}", func(ctx iris.Context) {
				ctx.Request().SetPathValue("room", ctx.Params().Get("room"))
				ctx.Request().Pattern = ctx.RouteName()
				hub.ServeHTTP(ctx.ResponseWriter(), ctx.Request())
			})
		})
	}
}
