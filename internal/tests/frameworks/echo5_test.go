package frameworks

import (
	"io"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/wsroom/wsroom"
)

func init() {
	mounts[`v5.GET("/chat/:room", echo.WrapHandler(hub))`] = func(hub *wsroom.Hub) http.Handler {
		v5 := echo.New()
		v5.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
		v5.Use(middleware.Recover(), middleware.RequestID(), middleware.Gzip())
		v5.GET("/chat/:room", echo.WrapHandler(hub))
		return v5
	}
}
