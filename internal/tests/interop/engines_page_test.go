package interop_test

import (
	"testing"

	"github.com/wsroom/wsroom/internal/browser"
)

// In all engines a page goes on after the back button, after a reload, and on a line that has died; whether the browser
// kept it for the back button or loads it again.
func TestPageMissesNothing(t *testing.T) {
	browser.Each(t, func(t *testing.T, b *browser.Browser) {
		k := newCounter(t)
		tab := b.Person(t).Open(k.site + "/page")
		tab.MayLoseServer()
		tab.Wait(`socket.state === "open" && socket.resumable`)
		k.count(5)
		k.complete(tab)
		tab.Go(k.site + "/other")
		k.count(5)
		tab.Back()
		tab.Wait(`location.pathname === "/page"`)
		k.complete(tab)
		if browser.Eval[bool](tab, "shown.at(-1)") {
			k.check(tab, false, true) // the page was kept, with what it had seen
		} else {
			k.check(tab, true)
		}

		tab.Go(k.site + "/page")
		tab.Wait(`socket.state === "open"`)
		k.count(5)
		k.complete(tab)
		k.check(tab, true)

		k.line.goDead() // and nobody tells the page, but that it is online again
		k.count(5)
		browser.Eval[bool](tab, `dispatchEvent(new Event("online"))`)
		k.complete(tab)
		k.check(tab, true, true)
	})
}
