package frameworks

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Fiber isn't net/http, but its adaptor hands connections over. Path values don't get through, and the answer says so.
func TestFiber(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, _ error) {
		c.SendTextToThisRoom(c.Room() + ": " + text)
	})))
	byValue := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room"))))
	app := fiber.New()
	app.Get("/chat/:room", adaptor.HTTPHandler(hub))
	app.Get("/value/:room", adaptor.HTTPHandler(byValue))
	checkSource(t, `app.Get("/chat/:room", adaptor.HTTPHandler(hub))`)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- app.Listener(ln, fiber.ListenConfig{DisableStartupMessage: true}) }()
	site := "http://" + ln.Addr().String()

	ws, res, err := websocket.Dial(t.Context(), site+"/chat/caf%C3%A9", nil)
	if err != nil {
		t.Fatal(res, err)
	}
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, p, err := ws.Read(t.Context()); err != nil || string(p) != "/chat/café: hello" {
		t.Errorf("%q, %v", p, err)
	}
	ws.Close(websocket.StatusNormalClosure, "")

	_, res, err = websocket.Dial(t.Context(), site+"/value/a", nil)
	if res == nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusInternalServerError || !strings.Contains(string(body), "SetPathValue") {
		t.Errorf("status %d, %q", res.StatusCode, body)
	}
	if err := app.Shutdown(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
