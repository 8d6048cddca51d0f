package docs_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// The page's code does what it stands beside: the same clients see the same.
func TestPeersAndWsroomDoTheSame(t *testing.T) {
	chat := wsroomtest.CheckHub(t, wsroomChat())
	push, pushHandler := wsroomPush()
	wsroomtest.CheckHub(t, push)
	for _, test := range []struct {
		name  string
		h     http.Handler
		works func(t *testing.T, h http.Handler)
	}{
		{"melody", melodyChat(), chats("welcome")},
		{"wsroom", chat, chats("welcome")},
		{"gorilla", gorillaChat(), chats()},
		{"coder", coderPush(), pushes},
		{"wsroom's push", pushHandler, pushes},
	} {
		t.Run(test.name, func(t *testing.T) { test.works(t, test.h) })
	}
}

func chats(welcome ...string) func(*testing.T, http.Handler) {
	return func(t *testing.T, h http.Handler) {
		ann := wsroomtest.Dial(t, h, "/chat/general")
		ann.ExpectText(welcome...)
		ann.SendText("anyone here?")
		ann.ExpectText("anyone here?") // with gorilla's example a client is there only some time after its dial
		bob := wsroomtest.Dial(t, h, "/chat/general")
		bob.ExpectText(welcome...)
		bob.SendText("yes")
		bob.ExpectText("yes")
		ann.ExpectText("yes")
	}
}

func pushes(t *testing.T, h http.Handler) {
	clients := wsroomtest.DialN(t, 2, h, "/subscribe")
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/publish", strings.NewReader("hello")))
	for _, c := range clients {
		c.ExpectText("hello")
	}
}
