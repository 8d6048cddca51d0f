package interop_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
)

var shots = flag.String("shots", "", "a directory for pictures of the inspector's page")

// pipe is a ResponseWriter whose connection is in memory.
type pipe struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (p pipe) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return p.conn, bufio.NewReadWriter(bufio.NewReader(p.conn), bufio.NewWriter(p.conn)), nil
}

// join connects a peer in memory, which reads all that comes, unless it is stalled, and hangs up when it is
// told to.
func join(t *testing.T, hub http.Handler, path string, stalled bool) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(name, value)
	}
	client, server := net.Pipe()
	go func() {
		defer client.Close()
		if stalled {
			<-r.Context().Done()
		}
		buf := make([]byte, 512)
		for err := error(nil); err == nil && buf[0] != 0x88; _, err = client.Read(buf) {
		}
	}()
	hub.ServeHTTP(pipe{httptest.NewRecorder(), server}, r)
}

// inspected serves an inspector of a hub at a path of its own and returns both and the page's URL.
func inspected(t *testing.T, opts ...inspector.Option) (*wsroom.Hub, string) {
	t.Helper()
	hub := wsroom.New(
		wsroom.WithHeartbeat(0, 0), wsroom.WithWriteTimeout(patience), wsroom.WithSendQueue(4096, 64<<20),
		wsroom.WithRoom(func(r *http.Request) (string, error) { return r.FormValue("room"), nil }),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { c.Set("name", r.FormValue("name")); return nil }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
	name := func(c *wsroom.Conn) string { v, _ := c.Get("name"); s, _ := v.(string); return s }
	in := inspector.New(hub, append(opts, inspector.WithLabel(name))...)
	mux := http.NewServeMux()
	mux.Handle("/debug/hub/", in)
	mux.Handle("/ws", hub)
	site := serve(t, mux)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(in.Shutdown(ctx), hub.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
	})
	return hub, site + "/debug/hub/"
}

func address(room, name string) string {
	return "/ws?" + url.Values{"room": {room}, "name": {name}}.Encode()
}

// picture writes what the page looks like to the directory of -shots.
func picture(t *testing.T, ctx context.Context, name string, width, height int64, scheme string) {
	t.Helper()
	if *shots == "" {
		return
	}
	var png []byte
	err := chromedp.Run(ctx,
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.EmulateViewport(width, height), chromedp.Sleep(300*time.Millisecond), chromedp.FullScreenshot(&png, 100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// The page stays quick with 10,000 connections in 1,000 rooms (1,000 in 100 with -short), and has no more
// rows than it shows.
func TestInspectorShowsManyConnections(t *testing.T) {
	ctx := chromium(t)
	hub, page := inspected(t)
	rooms := 1000
	if testing.Short() {
		rooms = 100
	}
	for i := range rooms {
		for j := range 10 {
			join(t, hub, address(fmt.Sprintf("/chat/room-%d", i), fmt.Sprint("Guest ", i*10+j)), false)
		}
	}
	var elements int
	var took float64
	find := fmt.Sprintf(`new Promise(resolve => {
		const begin = performance.now(), search = document.getElementById("search");
		search.value = "ROOM-%d";
		search.dispatchEvent(new Event("input"));
		const check = () => document.getElementById("rooms-rows").children.length === 1 ? resolve(performance.now() - begin) : setTimeout(check, 5);
		check();
	})`, rooms-1)
	err := chromedp.Run(ctx, chromedp.Navigate(page),
		chromedp.Poll(fmt.Sprintf(`document.getElementById("conns").textContent.replace(",", "") === "%d"`, rooms*10), nil),
		chromedp.Evaluate(`document.querySelectorAll("*").length`, &elements),
		chromedp.Evaluate(find, &took, awaited))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d elements; found after %.0f ms", elements, took)
	if elements > 1000 {
		t.Errorf("%d elements", elements)
	}
	if took > 2000 {
		t.Errorf("a search took %.0f ms", took)
	}
}

func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

func TestInspectorPictures(t *testing.T) {
	if *shots == "" {
		t.Skip("only with -shots")
	}
	ctx := chromium(t)
	hub, page := inspected(t, inspector.WithActions())
	names := strings.Fields("general support design lounge random engineering sales music games travel books films news sport cooking gardening history physics maths poetry art cats dogs tea")
	people := strings.Fields("Ada Grace Linus Margaret Edsger Barbara Donald Radia Alan Frances")
	n := 0
	for i, name := range names {
		for j := range 60 / (i + 1) {
			join(t, hub, address("/chat/"+name, people[(i+j)%10]), i == 2 && j < 3)
			n++
		}
	}
	stop := time.AfterFunc(0, func() {
		for i := 0; t.Context().Err() == nil; i++ {
			hub.SendTextToRoom("/chat/general", strings.Repeat("x", 300))
			if i%7 == 0 {
				hub.SendTextToRoom("/chat/design", strings.Repeat("x", 2000))
			}
			ws, _, err := websocket.Dial(t.Context(), strings.TrimSuffix(page, "/debug/hub/")+address("/chat/lobby", "Visitor"), nil)
			if i%10 == 0 && err == nil {
				time.AfterFunc(2500*time.Millisecond, func() { ws.Close(1001, "tab closed") })
			} else if err == nil {
				for range i * i % 37 {
					ws.Write(t.Context(), websocket.MessageText, []byte("hello"))
				}
				if i%3 == 0 {
					ws.Close(1000, "done")
				} else {
					ws.CloseNow()
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	defer stop.Stop()
	http.Get(strings.Replace(page, "/debug/hub/", "/ws?room=x", 1))
	if err := chromedp.Run(ctx, chromedp.Navigate(page), chromedp.Sleep(15*time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"light", "dark"} {
		picture(t, ctx, scheme, 1280, 900, scheme)
		picture(t, ctx, "phone-"+scheme, 390, 844, scheme)
	}
	chromedp.Run(ctx, chromedp.Click("#rooms-rows tr:nth-child(3) a"), chromedp.Sleep(1500*time.Millisecond))
	picture(t, ctx, "room-light", 1280, 900, "light")
	picture(t, ctx, "room-phone-dark", 390, 844, "dark")
	chromedp.Run(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Click("#members-rows tr:nth-child(2) button"), chromedp.Sleep(500*time.Millisecond))
	picture(t, ctx, "dialog-light", 1280, 900, "light")
	picture(t, ctx, "dialog-phone-dark", 390, 844, "dark")
}
