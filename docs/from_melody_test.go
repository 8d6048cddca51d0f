package docs_test

import (
	"net/http"

	"github.com/olahol/melody"
	"github.com/wsroom/wsroom"
)

func melodyChat() http.Handler {
	m := melody.New()
	m.HandleConnect(func(s *melody.Session) {
		s.Write([]byte("welcome"))
	})
	m.HandleMessage(func(s *melody.Session, msg []byte) {
		m.BroadcastFilter(msg, func(other *melody.Session) bool {
			return other.Request.URL.Path == s.Request.URL.Path
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.HandleRequest(w, r)
	})
}

func wsroomChat() *wsroom.Hub {
	return wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			return c.SendText("welcome")
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
}
