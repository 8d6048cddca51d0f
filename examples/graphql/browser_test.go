package main

import (
	"net/http"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

func open(t *testing.T, b *browser.Browser, url, name string) *browser.Tab {
	t.Helper()
	tab := b.Person(t).Open(url)
	tab.WaitText("#state", "Connected")
	tab.Click("#me")
	tab.Write("#name", name)
	tab.WaitText("#me bdi", browser.Plain(name))
	tab.WaitText("#state", "Connected")
	return tab
}

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) { return newChat() })
	ada, bob := open(t, b, s.URL, "Ada"), open(t, b, s.URL, "Bob")
	elsewhere := open(t, b, s.URL+"/?room=elsewhere", "Eve")
	ada.Write("#text", "Hello.")
	bob.WaitText("#log li:last-child .name", "Ada")
	bob.WaitText("#log li:last-child .text", "Hello.")
	ada.WaitText("#log li:last-child .text", "Hello.")
	ada.Click("#who")
	ada.WaitText("#log .note", "Bob")
	elsewhere.CheckLook() // without messages

	// A tab gets what it asks for.
	bob.Click(`[name="name"]`)
	bob.Wait(`!document.querySelector("#subscription").textContent.includes("name")`)
	bob.Click("#who") // the server has the subscription once it has answered what came later
	bob.WaitText("#log .note", "Ada")
	for _, hostile := range browser.Hostile {
		ada.Write("#text", hostile)
		bob.WaitText("#log li:last-child .text", hostile)
		ada.WaitText("#log li:last-child .name", "Ada")
	}
	bob.Wait(`!document.querySelector("#log li:last-child .name")`)
	bob.CheckUnharmed()
	ada.Write("#text", " ")
	ada.WaitText("#log .refused", "1 to 500 characters")
	elsewhere.Wait(`document.querySelectorAll("#log li").length === 0`)

	ada.MayLoseServer()
	bob.MayLoseServer()
	elsewhere.MayLoseServer()
	s.Stop()
	ada.WaitText("#state", "Connecting")
	s.Start()
	for _, tab := range []*browser.Tab{ada, bob, elsewhere} {
		tab.WaitText("#state", "Connected")
	}
	bob.CheckLook()
	bob.Click("#who")
	bob.WaitText("#log li:last-child", "people")
	ada.Write("#text", "Back.")
	bob.WaitText("#log li:last-child .text", "Back.")
}

// TestPicture is for examples/README.md.
func TestPicture(t *testing.T) {
	browser.Pictures(t)
	browser.Each(t, testPicture)
}

func testPicture(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) { return newChat() })
	ada, grace := open(t, b, s.URL, "Ada"), open(t, b, s.URL, "Grace")
	for _, m := range []struct {
		by   *browser.Tab
		text string
	}{
		{ada, "Does the schema have what the page needs?"},
		{grace, "It has people, say and said. What would you add?"},
		{ada, "Nothing. Each page selects what it shows, and gets no more."},
	} {
		m.by.Write("#text", m.text)
		ada.WaitText("#log li:last-child .text", m.text)
	}
	ada.Click("#who")
	ada.WaitText("#log .note", "Grace")
	grace.Write("#text", "Then I take names out of mine.")
	ada.WaitText("#log li:last-child .text", "Then I take")
	ada.Picture("graphql")
}
