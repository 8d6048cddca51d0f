package interop_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
	"github.com/wsroom/wsroom/wsroomtest"
)

var shots = flag.String("shots", "", "a directory for pictures of the inspector's page")

// With -shots it writes what the page looks like with some traffic: the rooms, a room and a dialog, in light
// and dark, wide and on a phone.
func TestInspectorPictures(t *testing.T) {
	if *shots == "" {
		t.Skip("only with -shots")
	}
	hub, page := inspected(t, inspector.WithActions())
	people := strings.Fields("Ada Grace Linus Margaret Edsger Barbara Donald Radia Alan Frances")
	for i, name := range strings.Fields("general support design lounge random engineering sales music games travel books " +
		"films news sport cooking gardening history physics maths poetry art cats dogs tea") {
		for j := range 60 / (i + 1) {
			member := wsroomtest.Dial(t, hub, address("/chat/"+name, people[(i+j)%len(people)]))
			if i == 2 && j < 3 {
				member.Stall()
			}
		}
	}
	go chatter(t, hub, strings.TrimSuffix(page, "/debug/hub/"))
	tab := open(t, page)
	pictures := func(name string) {
		for _, scheme := range []string{"light", "dark"} {
			for kind, width := range map[string]int64{"wide": 1280, "phone": 390} {
				var png []byte
				tab.Do(chromedp.EmulateViewport(width, 900), chromedp.Sleep(300*time.Millisecond),
					emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
					chromedp.FullScreenshot(&png, 100))
				if err := os.WriteFile(filepath.Join(*shots, name+"-"+kind+"-"+scheme+".png"), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	tab.Do(chromedp.Sleep(20 * time.Second)) // for the charts
	pictures("rooms")
	tab.Do(chromedp.Click("#rooms-rows tr:nth-child(3) a"), holds(`!document.getElementById("members").hidden`))
	pictures("room")
	tab.Do(chromedp.Click("#members-rows tr:nth-child(2) button"))
	pictures("dialog")
}

// chatter makes traffic until the test ends: messages to rooms, visitors who come and go.
func chatter(t *testing.T, hub *wsroom.Hub, site string) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; t.Context().Err() == nil; i++ {
		<-tick.C
		hub.SendTextToRoom("/chat/general", strings.Repeat("x", 300))
		if i%7 == 0 {
			hub.SendTextToRoom("/chat/design", strings.Repeat("x", 2000))
		}
		ws, _, err := websocket.Dial(t.Context(), site+address("/chat/lobby", "Visitor"), nil)
		if err != nil {
			continue
		}
		for range i * i % 37 {
			ws.Write(t.Context(), websocket.MessageText, []byte("hello"))
		}
		if i%10 == 0 {
			time.AfterFunc(2500*time.Millisecond, func() { ws.Close(websocket.StatusGoingAway, "tab closed") })
		} else {
			ws.CloseNow()
		}
	}
}
