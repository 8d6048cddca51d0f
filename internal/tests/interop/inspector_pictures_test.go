package interop_test

import (
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomtest"
)

// With -pictures it writes what the page looks like with some traffic: the rooms, a room and a dialog.
func TestInspectorPictures(t *testing.T) {
	browser.Pictures(t)
	browser.Each(t, testInspectorPictures)
}

func testInspectorPictures(t *testing.T, b *browser.Browser) {
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
	tab := b.Person(t).Open(page)
	tab.Wait("report?.history?.conns.length > 15") // for the charts
	tab.Picture("inspector-rooms")
	tab.Click("#rooms-rows tr:nth-child(3) a")
	tab.Wait(`!document.getElementById("members").hidden`)
	tab.Picture("inspector-room")
	tab.Click("#members-rows tr:nth-child(2) button")
	tab.Picture("inspector-dialog")
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
