package frameworks

import (
	"io"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/wsroom/wsroom"
)

func init() {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter = io.Discard

	mounts[`r.GET("/chat/:room", gin.WrapH(hub))`] = func(hub *wsroom.Hub) http.Handler {
		r := gin.Default()
		r.GET("/chat/:room", gin.WrapH(hub))
		return r
	}
	mounts[`c.Request.SetPathValue("room", c.Param("room")); c.Request.Pattern = c.FullPath()`] = func(hub *wsroom.Hub) http.Handler {
		r := gin.Default()
		r.GET("/chat/:room", func(c *gin.Context) {
			c.Request.SetPathValue("room", c.Param("room"))
			c.Request.Pattern = c.FullPath()
			hub.ServeHTTP(c.Writer, c.Request)
		})
		return r
	}
}
