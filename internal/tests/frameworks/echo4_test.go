package frameworks

import (
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/wsroom/wsroom"
)

func newEcho4() *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard)
	e.Use(middleware.Recover(), middleware.RequestID(), middleware.Gzip())
	return e
}

func init() {
	mounts[`e.GET("/chat/:room", echo.WrapHandler(hub))`] = func(hub *wsroom.Hub) http.Handler {
		e := newEcho4()
		e.GET("/chat/:room", echo.WrapHandler(hub))
		return e
	}
	mounts[`c.Request().SetPathValue("room", c.Param("room")); c.Request().Pattern = c.Path()`] = func(hub *wsroom.Hub) http.Handler {
		e := newEcho4()
		e.GET("/chat/:room", func(c echo.Context) error {
			c.Request().SetPathValue("room", c.Param("room"))
			c.Request().Pattern = c.Path()
			hub.ServeHTTP(c.Response(), c.Request())
			return nil
		})
		return e
	}
}
