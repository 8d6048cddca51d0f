package main

import (
	"fmt"
	"testing"

	"github.com/wsroom/wsroom/internal/browser"
)

// at is where the other one's cursor is in the page, rounded, or "" if it isn't there.
const at = `(() => {
	const cursor = document.querySelector(".cursor:not(.own, [hidden])");
	return cursor ? ["--x", "--y"].map((p) => cursor.style.getPropertyValue(p)).join() : "";
})()`

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("cursors move, and leave", func(t *testing.T) { testCursors(t, b) })
	if b.Name != browser.Chromium {
		return // the rest takes long
	}
	t.Run("the server restarts", func(t *testing.T) { testRestart(t, b) })
	t.Run("hostile names are text", func(t *testing.T) { testHostile(t, b) })
}

func testCursors(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newPresence)
	ada := b.Person(t).Open(s.URL)
	ada.WaitText("#alone", "Nobody else is here yet")
	ada.CheckLook()
	if b.Name == browser.Chromium { // the only one that can be a phone
		ada.Wait(`document.querySelector("#text").placeholder === "Say something at your cursor"`)
		ada.Resize(390, 844)
		ada.Wait(`document.querySelector("#text").placeholder === "Say something"`)
		ada.Resize(1200, 760)
	}
	bob := b.Person(t).Open(s.URL + "/r/lobby")
	elsewhere := b.Person(t).Open(s.URL + "/r/elsewhere")
	ada.Wait(`document.querySelectorAll(".face").length === 1 && document.querySelector("#alone").hidden`)
	elsewhere.WaitText("#alone", "Nobody else is here yet")

	// The board begins below the bar, which is as high in all windows.
	bar := browser.Eval[float64](ada, `document.querySelector("#board").getBoundingClientRect().top`)
	for _, to := range [][2]float64{{300, 200}, {700, 400}} {
		bob.Point(to[0], to[1])
		ada.Wait(fmt.Sprintf("%s === '%v,%v'", at, to[0], to[1]-bar))
	}
	bob.Fill("#text", "Up here")
	ada.WaitText("#typing", "is typing")
	ada.WaitText(".cursor:not(.own) .said", "Up here")
	ada.CheckLook()
	bob.Write("#text", "Up here!")
	ada.WaitText(".cursor:not(.own) .said", "Up here!")
	ada.Wait(`document.querySelector("#typing").innerText === ""`)
	if n := browser.Eval[int](elsewhere, `document.querySelectorAll(".face, .cursor:not(.own)").length`); n != 0 {
		t.Errorf("another room sees %d of them", n)
	}

	bob.Close()
	ada.Wait(at + ` === "" && document.querySelectorAll(".face").length === 0`)
	ada.WaitText("#alone", "Nobody else is here yet")
}

// TestPicture is for examples/README.md.
func TestPicture(t *testing.T) {
	browser.Pictures(t)
	browser.Each(t, testPicture)
}

func testPicture(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, newPresence)
	one := b.Person(t).Open(s.URL)
	for _, p := range []struct {
		x, y       float64
		name, said string
	}{{300, 220, "Grace", "Shall we move this up a little?"}, {980, 560, "Edsger", ""}, {640, 400, "Barbara", "I think that"}} {
		tab := b.Person(t).Open(s.URL)
		tab.Click("#me")
		tab.Write("#name", p.name)
		tab.WaitText("#state", "Connected")
		tab.Point(p.x, p.y)
		tab.Fill("#text", p.said)
		one.WaitText("#cursors", p.name)
	}
	one.Click("#me")
	one.Write("#name", "Ada")
	one.WaitText("#cursors", "I think that")
	one.Picture("presence")
}

func testRestart(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newPresence)
	ada, bob := b.Person(t).Open(s.URL), b.Person(t).Open(s.URL)
	ada.Wait(`document.querySelectorAll(".face").length === 1`)
	bob.Point(300, 200)
	ada.Wait(at + ` !== ""`)

	ada.MayLoseServer()
	bob.MayLoseServer()
	s.Stop()
	ada.Wait(`["waiting", "connecting"].includes(document.querySelector("#state").dataset.state)`)
	s.Start()
	for _, tab := range []*browser.Tab{ada, bob} {
		tab.WaitText("#state", "Connected")
		tab.Wait(`document.querySelectorAll(".face").length === 1`)
	}
	ada.Wait(at + ` !== ""`) // where it was, though it didn't move
}

func testHostile(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newPresence)
	ada, eve := b.Person(t).Open(s.URL), b.Person(t).Open(s.URL)
	eve.Point(300, 200)
	for _, hostile := range browser.Hostile {
		name := string([]rune(hostile)[:min(24, len([]rune(hostile)))])
		eve.Click("#me")
		eve.Write("#name", name)
		eve.WaitText("#me bdi", browser.Plain(name))
		ada.WaitText(".cursor:not(.own) .name", browser.Plain(name))
		eve.Write("#text", hostile)
		ada.WaitText(".cursor:not(.own) .said", hostile)
		ada.CheckUnharmed()
		eve.CheckUnharmed()
	}
}
