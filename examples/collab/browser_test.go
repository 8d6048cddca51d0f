package main

import (
	"fmt"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/chromedp/cdproto/input"
	"github.com/wsroom/wsroom/internal/browser"
)

// openPage opens a document for somebody of that name.
func openPage(t *testing.T, b *browser.Browser, site, doc, name string) *browser.Tab {
	t.Helper()
	tab := b.Person(t).Open(site + "/d/" + doc)
	tab.WaitText("#state", "Connected")
	rename(tab, name)
	return tab
}

func rename(tab *browser.Tab, name string) {
	tab.Click("#me")
	tab.Write("#name", name)
	tab.WaitText("#me bdi", browser.Plain(name))
}

// typeAt puts the cursor of a tab and types.
func typeAt(tab *browser.Tab, at int, text string) {
	choose(tab, at, at)
	tab.Type(text)
}

// choose chooses a part of a tab's text.
func choose(tab *browser.Tab, from, to int) {
	tab.Focus("#text")
	browser.Eval[any](tab, fmt.Sprintf(`document.querySelector("#text").setSelectionRange(%d, %d)`, from, to))
}

const text = `document.querySelector("#text").value`

func waitIs(tab *browser.Tab, want string) {
	tab.Wait(text + " === " + browser.Quoted(want))
}

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("two tabs and two programs have one text", func(t *testing.T) { testAll(t, b) })
	t.Run("cursors, and undo", func(t *testing.T) { testCursors(t, b) })
	if b.Name == browser.Chromium { // whose protocol composes
		t.Run("a word that is composed", func(t *testing.T) { testComposing(t, b) })
	}
	t.Run("a node is away", func(t *testing.T) { testAway(t, b) })
	t.Run("hostile names and texts are shown", func(t *testing.T) { testHostile(t, b) })
}

func testAll(t *testing.T, b *browser.Browser) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	eve, kim := openPage(t, b, one.URL, "doc", "Eve"), openPage(t, b, other.URL, "doc", "Kim")
	ada.do(order{"do": "synced"})
	ada.insert("Ada\n")
	waitIs(kim, "Ada\n")
	typeAt(kim, 4, "Kim\n")
	waitIs(eve, "Ada\nKim\n")
	typeAt(eve, 0, "Eve\n")
	all := []*writer{ada, bob}
	agree(t, all, "Eve\nAda\nKim\n")
	for _, w := range all {
		w.do(order{"do": "people", "are": []string{"Ada", "Bob", "Eve", "Kim"}})
	}

	ada.do(order{"do": "offline"})
	bob.do(order{"do": "offline"})
	for _, tab := range []*browser.Tab{eve, kim} {
		tab.Click("#offline")
		tab.WaitText("#state", "Not connected")
	}
	ada.insert("from Ada\n")
	bob.do(order{"do": "delete", "at": 4, "length": 4})
	typeAt(eve, 0, "from Eve 😀\n")
	typeAt(kim, 12, "from Kim\n")
	waitIs(kim, "Eve\nAda\nKim\nfrom Kim\n")
	for _, tab := range []*browser.Tab{eve, kim} {
		tab.Click("#offline")
	}
	ada.do(order{"do": "online"})
	bob.do(order{"do": "online"})
	same := agree(t, all, "Eve\n", "Kim\n", "from Ada\n", "from Eve 😀\n", "from Kim\n")
	for _, tab := range []*browser.Tab{eve, kim} {
		waitIs(tab, same)
		tab.WaitText("#state", "Connected")
		tab.Wait(`document.querySelectorAll(".face").length === 3`)
		tab.Wait(`new Set([...document.querySelectorAll(".face")].map((e) => e.style.getPropertyValue("--hue"))).size === 3`)
	}
	late := openPage(t, b, other.URL, "doc", "Late")
	waitIs(late, same)

	// A field has no \r, but what is written behind it lands behind it.
	ada.insert("\r\nlast")
	late.Wait(text + `.endsWith("\u240d\nlast")`)
	typeAt(late, len(utf16.Encode([]rune(same+"\r\nlast"))), "!")
	for _, w := range all {
		w.do(order{"do": "is", "text": same + "\r\nlast!"})
	}
}

func testCursors(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := openPage(t, b, one.URL, "doc", "Ada"), openPage(t, b, other.URL, "doc", "Bob")
	ada.Fill("#text", "Hello") // at once, so that it is one step of undo
	waitIs(bob, "Hello")
	bob.WaitText(".caret .flag", "Ada")
	typeAt(bob, 0, "Oh. ")
	waitIs(ada, "Oh. Hello")

	// Ada's cursor stays behind what she wrote, in her field and in Bob's mirror.
	if at := browser.Eval[int](ada, `document.querySelector("#text").selectionEnd`); at != 9 {
		t.Errorf("the cursor is at %d", at)
	}
	bob.Wait(`document.querySelector(".caret").previousSibling.textContent === "Oh. Hello"`)
	ada.Press("Control", "z")
	waitIs(ada, "Oh. ")
	waitIs(bob, "Oh. ")
	ada.Press("Control", "y")
	waitIs(bob, "Oh. Hello")
	choose(ada, 4, 9)
	bob.WaitText(".marked", "Hello")
	bob.CheckLook()
	choose(ada, 8, 9)
	ada.Type("p!")
	waitIs(bob, "Oh. Hellp!")

	// The two halves of a character stay together.
	for _, face := range []string{"😀", "😁", "😀😁", "😁😁", "🚀😁"} {
		bob.Fill("#text", face)
		waitIs(ada, face)
	}

	bob.Close()
	ada.Wait(`document.querySelectorAll(".face, .caret").length === 0`)
}

// What comes while Bob composes a word doesn't get in its way.
func testComposing(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := openPage(t, b, one.URL, "doc", "Ada"), openPage(t, b, other.URL, "doc", "Bob")
	bob.Focus("#text")
	bob.Do(input.ImeSetComposition("nihon", 5, 5))
	waitIs(ada, "nihon")
	typeAt(ada, 0, "Yes: ")
	bob.Do(input.InsertText("日本"))
	waitIs(ada, "Yes: 日本")
	waitIs(bob, "Yes: 日本")
}

func testAway(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := openPage(t, b, one.URL, "doc", "Ada"), openPage(t, b, other.URL, "doc", "Bob")
	typeAt(ada, 0, "1")
	waitIs(bob, "1")
	ada.MayLoseServer()
	one.Stop()
	ada.WaitText("#state", "Connecting")
	bob.Wait(`document.querySelectorAll(".face").length === 0`)
	typeAt(ada, 1, "2")
	typeAt(bob, 0, "0")
	one.Start()
	waitIs(ada, "012")
	waitIs(bob, "012")
	seen := func() {
		t.Helper()
		for _, tab := range []*browser.Tab{ada, bob} {
			tab.Wait(`document.querySelectorAll(".face").length === 1`)
		}
	}
	seen()

	// They see each other at once, though neither has anything new to say.
	one.Stop()
	ada.WaitText("#state", "Connecting")
	bob.Wait(`document.querySelectorAll(".face").length === 0`)
	one.Start()
	began := time.Now()
	seen()
	if took := time.Since(began); took > 10*time.Second { // 15 s is when pages say it again by themselves
		t.Errorf("that took %v", took)
	}
}

func testHostile(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	one, other := twoNodes(t, newMemory())
	ada, eve := openPage(t, b, one.URL, "doc", "Ada"), openPage(t, b, other.URL, "doc", "Eve")
	for _, hostile := range browser.Hostile {
		name := string([]rune(hostile)[:min(24, len([]rune(hostile)))])
		rename(eve, name)
		eve.Fill("#text", hostile)
		ada.WaitText(".caret .flag", browser.Plain(name))
		waitIs(ada, hostile)
		ada.CheckUnharmed()
		eve.CheckUnharmed()
	}
}

// TestPicture is for examples/README.md.
func TestPicture(t *testing.T) {
	browser.Pictures(t)
	browser.Each(t, testPicture)
}

func testPicture(t *testing.T, b *browser.Browser) {
	one, other := twoNodes(t, newMemory())
	const notes = "Notes for the launch\n\nWe open the doors at ten. The demo runs on two nodes, so that anyone can pull " +
		"the plug of one of them while the others go on writing. Nobody should notice.\n\n1. Ask Grace about the " +
		"projector.\n2. Two laptops, one phone.\n3. Take the train at 7:40, not the one at 8:10.\n\n" +
		"What is still open: who brings the badges?\n"
	ada := openPage(t, b, one.URL, "launch", "Ada")
	ada.Fill("#text", notes)
	grace, edsger := openPage(t, b, other.URL, "launch", "Grace"), openPage(t, b, other.URL, "launch", "Edsger")
	waitIs(grace, notes)
	waitIs(edsger, notes)
	choose(grace, 48, 76)
	typeAt(edsger, len(notes)-1, " I do.")
	ada.WaitText(".caret .flag", "Grace")
	ada.WaitText("#mirror", "I do.")
	ada.Picture("collab")
}
