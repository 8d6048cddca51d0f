package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// scene is what a page shows, in its scripts.
const scene = `document.querySelector("#field").world`

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("players see each other move", func(t *testing.T) { testMove(t, b) })
	t.Run("the line is cut", func(t *testing.T) { testCut(t, b) })
	if b.Name != browser.Chromium {
		return // the rest takes long, or only Chromium has what it needs: a finger, and a page that stands still
	}
	t.Run("a late joiner sees all", func(t *testing.T) { testLate(t, b) })
	t.Run("the line is cut for too long", func(t *testing.T) { testGone(t, b) })
	t.Run("a finger on a phone", func(t *testing.T) { testTouch(t, b) })
	t.Run("two windows of one player", func(t *testing.T) { testTakenOver(t, b) })
	t.Run("hostile names are text", func(t *testing.T) { testHostile(t, b) })
}

// serve serves a game that keeps players for so long. cut cuts all lines, without a word.
func serve(t *testing.T, keep time.Duration) (url string, cut func()) {
	var hub *wsroom.Hub
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
		h, handler := newGame(keep)
		hub = h
		return h, handler
	})
	return s.URL, func() {
		for c := range hub.Conns() {
			_ = c.WebSocket().CloseNow()
		}
	}
}

// page is a tab that plays.
type page struct{ *browser.Tab }

func open(p *browser.Person, url string) page {
	tab := page{p.Open(url)}
	tab.Wait(scene + ".toScreen(" + scene + ".me().at)") // it is drawn
	return tab
}

func (p page) id() int { return browser.Eval[int](p.Tab, scene+`.me().id`) }

// at is where a page draws a player.
func at(id int, axis int) string { return fmt.Sprintf("%s.players.get(%d).at[%d]", scene, id, axis) }

func testMove(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, _ := serve(t, time.Minute)
	one := b.Person(t) // with two tabs: each is a player
	ada, bob := open(one, url), open(one, url)
	id := bob.id()
	if ada.id() == id {
		t.Fatal("two tabs are one player")
	}
	for _, c := range []struct {
		key, there string
		axis       int
	}{
		{"ArrowLeft", "< 25", 0}, {"s", "> 1175", 1},
	} {
		bob.Hold(c.key)
		ada.Wait(at(id, c.axis) + c.there)
		bob.Wait(at(id, c.axis) + c.there)
		bob.Release(c.key)
	}
	// Its way is drawn between what the server says, which is in tenths.
	bob.Hold("ArrowRight")
	ada.Wait(at(id, 0) + "> 50")
	ada.Wait(fmt.Sprintf("Math.abs(%s * 10 %% 1 - 0.5) < 0.4", at(id, 0)))
	bob.Release("ArrowRight")
	// It is drawn there: the field's middle is of other colours than the player's.
	ada.Wait(`new Set(document.querySelector("#field").getContext("2d").getImageData(0, 0, 600, 600).data).size > 8`)
	elsewhere := open(one, url+"/#elsewhere")
	if n := browser.Eval[int](elsewhere.Tab, scene+`.players.size`); n != 1 {
		t.Errorf("another room has %d players", n)
	}
	bob.Close()
	ada.Wait(fmt.Sprintf("%s.players.get(%d).away", scene, id))
	ada.WaitText("#scores .away", "is away")
	ada.CheckLook()
}

// score has the page collect a star: it holds the mouse where one is.
func (p page) score() {
	browser.Eval[any](p.Tab, `(() => {
		const field = document.querySelector("#field");
		const go = (type) => {
			const { me, stars } = field.world;
			const way = ({ at }) => Math.hypot(at[0] - me().at[0], at[1] - me().at[1]);
			const [star] = [...stars.values()].sort((a, b) => way(a) - way(b));
			const [x, y] = field.world.toScreen(star.at);
			field.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX: x, clientY: y + field.getBoundingClientRect().top }));
		};
		HTMLElement.prototype.setPointerCapture = () => {}; // there is no such pointer
		go("pointerdown");
		const goOn = setInterval(() => go("pointermove"), 50);
		window.stop = () => { clearInterval(goOn); go("pointerup"); };
	})()`)
	p.Wait(scene + `.me().score > 0`)
	browser.Eval[any](p.Tab, `window.stop()`)
}

func testLate(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, _ := serve(t, time.Minute)
	ada, bob := open(b.Person(t), url), open(b.Person(t), url)
	ada.score()
	bob.Hold("ArrowLeft")
	ada.Wait(at(bob.id(), 0) + "< 25")
	cyn := b.Person(t).Open(url)
	cyn.Wait(scene + `.players.size === 3`)
	cyn.Wait(at(bob.id(), 0) + "< 25")
	const score = `document.querySelector("#scores ol").innerText`
	cyn.Wait(fmt.Sprintf("%s === %s", score, browser.Quoted(browser.Eval[string](ada.Tab, score))))
	if n := browser.Eval[int](cyn, scene+`.stars.size`); n != 14 {
		t.Errorf("a late joiner sees %d stars", n)
	}
}

func testCut(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, cut := serve(t, time.Minute)
	ada, bob := open(b.Person(t), url), open(b.Person(t), url)
	ada.score()
	ada.Hold("ArrowLeft")
	ada.Wait(at(ada.id(), 0) + "< 25")
	id, score := ada.id(), browser.Eval[int](ada.Tab, scene+`.me().score`)
	same := fmt.Sprintf(`%s.me().id === %d && %[1]s.me().score >= %d && !%[1]s.me().away && %[1]s.me().at[0] < 25`, scene, id, score)
	for range 2 {
		cut()
		ada.Wait(`document.body.dataset.state === "waiting"`)
		ada.WaitText("#state", "Connected")
		bob.WaitText("#state", "Connected")
		ada.Wait(same)
		y := browser.Eval[float64](bob.Tab, at(id, 1))
		key := "ArrowDown"
		if y > height/2 {
			key = "w"
		}
		ada.Hold(key)
		bob.Wait(fmt.Sprintf("Math.abs(%s - %v) > 100", at(id, 1), y))
		ada.Release(key)
	}
	ada.Go(url)
	ada.Wait(same)
	ada.Write("#name", "Ada L.") // with a connection of its own
	bob.WaitText("#scores", "Ada L.")
	ada.Wait(same)
	bob.Wait(scene + `.players.size === 2`)
}

func testGone(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, cut := serve(t, 300*time.Millisecond)
	ada := open(b.Person(t), url)
	bob := open(b.Person(t), url)
	id := bob.id()
	bob.score()
	bob.Freeze() // it doesn't come back
	cut()
	ada.WaitText("#state", "Connected")
	ada.Wait(fmt.Sprintf("!%s.players.has(%d)", scene, id))
	bob.Thaw()
	bob.WaitText("#state", "Connected")
	bob.Wait(scene + ".me().score === 0")
}

func testTouch(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, _ := serve(t, time.Minute)
	ada := open(b.Person(t), url)
	ada.Do(chromedp.EmulateViewport(390, 780, chromedp.EmulateMobile, chromedp.EmulateTouch))
	ada.WaitText("#hint", "Hold a finger")
	ada.Do(input.DispatchTouchEvent(input.TouchStart, []*input.TouchPoint{{X: 5, Y: 400}}))
	ada.Wait(scene + `.me().at[0] < 100`)
	ada.Do(input.DispatchTouchEvent(input.TouchMove, []*input.TouchPoint{{X: 385, Y: 400}}))
	ada.Wait(scene + `.me().at[0] > 1500`)
	ada.Do(input.DispatchTouchEvent(input.TouchEnd, []*input.TouchPoint{}))
	if wide := browser.Eval[int](ada.Tab, `document.documentElement.scrollWidth`); wide > 390 {
		t.Errorf("on a phone the page is %d pixels wide", wide)
	}
}

func testTakenOver(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, _ := serve(t, time.Minute)
	ada := open(b.Person(t), url)
	id := ada.id()
	// A tab that is duplicated has the same secret.
	ada.Do(chromedp.Evaluate(`open(location.href), undefined`, nil))
	ada.WaitText("#notice", "You play in another tab.")
	ada.Click("#state .retry")
	ada.WaitText("#state", "Connected")
	if ada.id() != id {
		t.Errorf("player %d is now %d", id, ada.id())
	}
}

func testHostile(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	url, _ := serve(t, time.Minute)
	ada, eve := open(b.Person(t), url), open(b.Person(t), url)
	for _, hostile := range browser.Hostile {
		name := string([]rune(hostile)[:min(20, len([]rune(hostile)))])
		eve.Write("#name", name)
		ada.WaitText("#scores", browser.Plain(name))
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
	url, _ := serve(t, time.Minute)
	var pages []page
	for _, name := range []string{"Ada", "Grace", "Edsger", "Barbara", "Alan"} {
		tab := open(b.Person(t), url)
		tab.Write("#name", name)
		tab.WaitText("#scores", name)
		tab.score()
		pages = append(pages, tab)
	}
	pages[3].Close()
	pages[0].WaitText("#scores", "is away")
	pages[0].Picture("game")
}
