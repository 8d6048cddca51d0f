package main

import (
	"testing"

	"github.com/wsroom/wsroom/internal/browser"
)

func TestInTheBrowser(t *testing.T) {
	b := browser.Start(t)
	t.Run("two talk, a third elsewhere hears nothing", func(t *testing.T) { testTalk(t, b) })
	t.Run("the server restarts", func(t *testing.T) { testRestart(t, b) })
	t.Run("hostile names and messages are text", func(t *testing.T) { testHostile(t, b) })
}

// enter opens a room as somebody new.
func enter(t *testing.T, b *browser.Browser, url, name string) *browser.Tab {
	t.Helper()
	tab := b.Person(t).Open(url)
	tab.Write("#name", name)
	tab.WaitText(".state", "Connected")
	return tab
}

func testTalk(t *testing.T, b *browser.Browser) {
	t.Parallel()
	s := browser.Serve(t, newChat)
	ada, bob := enter(t, b, s.URL+"/r/general", "Ada"), enter(t, b, s.URL+"/r/general", "Bob")
	cyn := enter(t, b, s.URL+"/r/design", "Cyn")
	ada.WaitText(".people", "Bob")
	ada.Write("textarea", "Has anybody seen the new figures?")
	bob.WaitText(".messages", "Has anybody seen the new figures?")
	bob.Write("textarea", "Yes: https://example.com/figures")
	ada.WaitText(".message:not(.own) .bubble", "example.com/figures")
	ada.WaitText(".message:not(.own) .author", "Bob")
	ada.Write("textarea", "Thank you!")
	bob.WaitText(".messages", "Thank you!")
	ada.Picture("chat")
	cyn.WaitText(".empty", "No messages yet")
	cyn.Write("textarea", "Anybody?")
	cyn.WaitText(".messages", "Anybody?")
	if n := browser.Eval[int](cyn, `document.querySelectorAll(".message").length`); n != 1 {
		t.Errorf("Cyn sees %d messages", n)
	}
}

func testRestart(t *testing.T, b *browser.Browser) {
	t.Parallel()
	s := browser.Serve(t, newChat)
	ada, bob := enter(t, b, s.URL, "Ada"), enter(t, b, s.URL, "Bob")
	ada.MayLoseServer()
	bob.MayLoseServer()
	s.Stop()
	ada.Wait(`["waiting", "connecting"].includes(document.querySelector(".state").dataset.state)`)
	ada.Write("textarea", "Written meanwhile")
	ada.WaitText(".hint .note", "Messages wait")
	s.Start()
	bob.WaitText(".state", "Connected")
	bob.WaitText(".messages", "Written meanwhile")
	ada.WaitText(".state", "Connected")
	ada.Wait(`document.querySelectorAll(".outbox li").length === 0`)
	bob.Write("textarea", "Welcome back")
	ada.WaitText(".messages", "Welcome back")
}

func testHostile(t *testing.T, b *browser.Browser) {
	t.Parallel()
	s := browser.Serve(t, newChat)
	ada, eve := enter(t, b, s.URL, "Ada"), enter(t, b, s.URL, "Eve")
	for _, hostile := range browser.Hostile {
		name := string([]rune(hostile)[:min(32, len([]rune(hostile)))])
		eve.Click("#me")
		eve.Write("#name", name)
		ada.WaitText(".people", browser.Plain(name))
		eve.Write("textarea", hostile)
		ada.Wait(`[...document.querySelectorAll(".said")].at(-1).innerText === ` + browser.Quoted(hostile))
		ada.WaitText(".messages", browser.Plain(name))
		ada.CheckUnharmed()
		eve.CheckUnharmed()
	}
}
