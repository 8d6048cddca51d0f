package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
		hub := newHub()
		return hub, handler(hub)
	})
	publish := func(text string) {
		t.Helper()
		resp, err := http.Post(s.URL+"/publish/news", "text/plain", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	tab := b.Person(t).Open(s.URL)
	tab.WaitText("#state", "Connected")
	tab.WaitText("#empty", "No news yet")
	tab.CheckLook()
	publish("The train is late.")
	tab.WaitText("#news", "The train is late.")
	publish("Platform 4, not 2.")
	tab.WaitText("#news", "Platform 4, not 2.")
	tab.Picture("push")
	tab.CheckLook()
	for _, hostile := range browser.Hostile {
		publish(hostile)
		tab.WaitText("#news li p", hostile)
	}
	tab.CheckUnharmed()

	tab.MayLoseServer()
	s.Stop()
	tab.Wait(`document.querySelector("#state").dataset.state !== "open"`)
	s.Start()
	tab.WaitText("#state", "Connected")
	publish("It has come.")
	tab.WaitText("#news", "It has come.")
}
