package main

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// running is a dashboard whose service has been at work for a while, and is until the test ends.
func running(t *testing.T, past time.Duration) func() (*wsroom.Hub, http.Handler) {
	return func() (*wsroom.Hub, http.Handler) {
		d, handler := newDashboard()
		d.since = time.Now().Add(-past)
		for at := time.Duration(0); at < past; at += step {
			if serve(at, d.record); at%(100*time.Millisecond) == 0 {
				if err := d.push(time.Now().Add(at - past)); err != nil {
					t.Error(err)
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		go simulate(ctx, d.record)
		go d.run(ctx, time.Second/10)
		return d.hub, handler
	}
}

const (
	number = `document.querySelector(".tile .number").innerText`
	points = `document.querySelector("#chart .first").getAttribute("d").split("L").length`
)

// changes waits until the first figure is another.
func changes(tab *browser.Tab) {
	tab.Wait(number + " !== " + browser.Quoted(browser.Eval[string](tab, number)))
}

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, running(t, keep))
	tab := b.Person(t).Open(s.URL)
	tab.WaitText("#state", "Connected")
	tab.Wait(points + " > 500")
	changes(tab)
	tab.WaitText("#note", "messages")

	tab.Click(".tile:nth-child(2)")
	tab.WaitText("#title", "Latency")
	tab.WaitText("#legend", "median")
	tab.Wait(`document.querySelector("#chart .second").getAttribute("d") !== ""`)
	tab.Point(1100, 400)
	tab.WaitText("#readout", "s ago")
	tab.Picture("dashboard")
	tab.CheckLook()
	tab.Resize(1200, 760)

	if b.Name == browser.Chromium { // only there a page can be frozen
		testSlow(t, b, s, tab)
	}
	tab.MayLoseServer()
	s.Stop()
	tab.Wait(`document.body.classList.contains("stale")`)
	s.Start()
	tab.WaitText("#state", "Connected")
	changes(tab)
}

// testSlow opens a page that doesn't keep up.
func testSlow(t *testing.T, b *browser.Browser, s *browser.Server, tab *browser.Tab) {
	t.Helper()
	slow := b.Person(t).Open(s.URL)
	tab.Wait(`document.querySelector(".tile:nth-child(4) .number").innerText === "2"`)
	slow.Wait(points + " > 500")
	slow.Freeze()
	for range 3 { // nobody waits for it
		changes(tab)
	}
	slow.Thaw()
	changes(slow)
	slow.Close()
}

// A service that has just begun fills the chart and the small ones, too, and the scales don't jump.
func TestDashboardIsNeverEmpty(t *testing.T) {
	s := browser.Serve(t, running(t, 6*time.Second))
	tab := browser.Start(t).Person(t).Open(s.URL)
	tab.Wait(points + " > 50")
	const starts = `["#chart .first", ".spark .line"].map((at) => document.querySelector(at)).map((line) =>
		parseFloat(line.getAttribute("d").slice(1)) / line.ownerSVGElement.viewBox.baseVal.width)`
	for i, start := range browser.Eval[[]float64](tab, starts) {
		if start > 0.05 {
			t.Errorf("the line %d begins at %.0f %% of the width", i, 100*start)
		}
	}
	const widths = `[...document.querySelectorAll(".tile")].map((tile) => tile.querySelector(".spark").clientWidth / tile.clientWidth)`
	for _, width := range browser.Eval[[]float64](tab, widths) {
		if width < 0.95 {
			t.Errorf("a small chart has %.0f %% of its card", 100*width)
		}
	}
	const tops = `import("/dashboard.js").then(({ ceiling }) => {
		const figure = { low: 4 };
		return [100, 190, 70, 201, 140, 60, 81].map((peak) => ceiling(figure, peak));
	})`
	if got := browser.Eval[[]int](tab, tops); !slices.Equal(got, []int{200, 200, 200, 400, 400, 80, 100}) {
		t.Errorf("the scale ends at %d", got)
	}
}
