package main

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/wsroom/wsroom/internal/browser"
)

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("everyone sees cards come, move and go", func(t *testing.T) { testCards(t, b) })
	t.Run("the server restarts", func(t *testing.T) { testRestart(t, b) })
	t.Run("hostile cards and names are text", func(t *testing.T) { testHostile(t, b) })
}

func open(t *testing.T, b *browser.Browser, url string) *browser.Tab {
	t.Helper()
	tab := b.Person(t).Open(url)
	tab.WaitText("#state", "Connected")
	tab.WaitText("#column-2", "No cards")
	return tab
}

// cards are the texts of a column.
func cards(column int) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#column-%d .card p")].map((e) => e.textContent).join()`, column)
}

func testCards(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newBoards)
	ada, bob := open(t, b, s.URL), open(t, b, s.URL+"/b/team/")
	elsewhere := open(t, b, s.URL+"/b/other/")
	ada.WaitText("#people", "2 are here")
	ada.Write("#text", "Buy bread")
	ada.Wait(`document.querySelector("#text").value === ""`)
	ada.Write("#text", "Bake a cake")
	bob.Wait(cards(0) + ` === "Buy bread,Bake a cake"`)
	cyn := open(t, b, s.URL+"/b/team/")
	cyn.Wait(cards(0) + ` === "Buy bread,Bake a cake"`)

	bob.Click("#right-1")
	for _, tab := range []*browser.Tab{ada, bob, cyn} {
		tab.Wait(cards(0) + ` === "Bake a cake"`)
		tab.Wait(cards(1) + ` === "Buy bread"`)
		tab.WaitText("#column-1 .count", "1")
	}
	cyn.Click("#right-1")
	ada.Wait(cards(2) + ` === "Buy bread"`)
	ada.CheckLook()
	ada.Click("#left-1")
	cyn.Wait(cards(1) + ` === "Buy bread"`)

	// What somebody writes, and where the focus is, stays when others change the board.
	cyn.Fill("#text", "Wash up")
	ada.Click("#remove-1")
	cyn.Wait(cards(1) + ` === ""`)
	cyn.WaitText("#column-1", "No cards")
	cyn.Wait(`document.querySelector("#text").value === "Wash up"`)
	cyn.Focus("#right-2")
	browser.Eval[any](cyn, `document.querySelector("#card-2").same = true`)
	ada.Write("#text", "Eat the cake")
	cyn.Wait(cards(0) + ` === "Bake a cake,Eat the cake"`)
	cyn.Wait(`document.activeElement.id === "right-2" && document.querySelector("#card-2").same`)
	if said := browser.Eval[string](elsewhere, cards(0)); said != "" {
		t.Errorf("another board has %q", said)
	}
	cyn.Close()
	ada.WaitText("#people", "2 are here")
}

func testRestart(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newBoards)
	ada := open(t, b, s.URL)
	ada.Write("#text", "Buy bread")
	ada.Wait(cards(0) + ` === "Buy bread"`)
	ada.MayLoseServer()
	ada.Forgive("htmx:ws:error") // it tells of that in the console
	s.Stop()
	ada.Wait(`document.body.dataset.state === "connecting"`)
	ada.Write("#text", "Bake a cake") // the extension keeps it
	s.Start()
	ada.WaitText("#state", "Connected")
	ada.Wait(cards(0) + ` === "Bake a cake"`) // the new process has nothing else
}

func testHostile(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, newBoards)
	ada, bob := open(t, b, s.URL), open(t, b, s.URL)
	for _, hostile := range browser.Hostile {
		for _, tab := range []*browser.Tab{ada, bob} {
			tab.Go(s.URL + "/b/" + url.PathEscape(hostile) + "/")
			tab.WaitText("#state", "Connected")
			tab.WaitText("#name", hostile)
		}
		ada.Write("#text", hostile)
		bob.Wait(cards(0) + " === " + browser.Quoted(hostile))
		bob.Click("#right-1")
		ada.Wait(cards(1) + " === " + browser.Quoted(hostile))
		ada.CheckUnharmed()
		bob.CheckUnharmed()
	}
}

// TestPicture is for examples/README.md.
func TestPicture(t *testing.T) {
	browser.Pictures(t)
	browser.Each(t, testPicture)
}

func testPicture(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, newBoards)
	ada := open(t, b, s.URL)
	open(t, b, s.URL+"/b/team/")
	for i, text := range []string{
		"Book the train", "Ask Grace about the slides", "Draft the talk on compilers", "Reserve the room",
		"Send the invitations, with the address and how to get there",
	} {
		ada.Write("#text", text)
		ada.WaitText("#column-0", text)
		for column := range i % 3 {
			ada.Click(fmt.Sprint("#right-", i+1))
			ada.WaitText(fmt.Sprint("#column-", column+1), text)
		}
	}
	ada.Wait(`document.getAnimations().length === 0`)
	ada.Picture("board")
}
