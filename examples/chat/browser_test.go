package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomtest"
)

const asProgram = "WSROOM_TEST_CHAT"

// TestMain is the example's main where a test asks for one.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("two talk, a third elsewhere hears nothing", func(t *testing.T) { testTalk(t, b) })
	t.Run("a name is refused, and another isn't", func(t *testing.T) { testName(t, b) })
	t.Run("the server restarts", func(t *testing.T) { testRestart(t, b) })
	if b.Name != browser.Chromium {
		return // the rest takes long, or a page that can be frozen
	}
	t.Run("the server is killed", func(t *testing.T) { testKill(t, b) })
	t.Run("the connection breaks", func(t *testing.T) { testBreak(t, b) })
	t.Run("hostile names and messages are text", func(t *testing.T) { testHostile(t, b) })
}

// unkept is a chat whose history ends with it.
func unkept(t *testing.T) func() (*wsroom.Hub, http.Handler) {
	return func() (*wsroom.Hub, http.Handler) { return newChat(opened(t, ":memory:")) }
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
	b.Parallel(t)
	s := browser.Serve(t, unkept(t))
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
	ada.CheckLook()
	// A minute is told once; a test may begin in one and end in the next.
	if times := browser.Eval[[]string](ada, `[...document.querySelectorAll(".bubble time")].map((e) => e.textContent)`); len(times) == 0 || len(slices.Compact(times)) != len(times) {
		t.Errorf("the times are %q", times)
	}
	cyn.WaitText(".empty", "No messages yet")
	cyn.CheckLook()
	cyn.Write("textarea", "Anybody?")
	cyn.WaitText(".messages", "Anybody?")
	if n := browser.Eval[int](cyn, `document.querySelectorAll(".message").length`); n != 1 {
		t.Errorf("Cyn sees %d messages", n)
	}
}

func testRestart(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, unkept(t))
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

// Somebody that comes back is shown their name. The server refuses it, which nothing but a dialog can mend.
func testName(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, unkept(t))
	ada := b.Person(t)
	tab := ada.Open(s.URL+"/chat.css", "favicon.ico") // a page of the same site, for its storage
	browser.Eval[string](tab, `localStorage["chat.name"] = JSON.stringify("A\u0000da")`)
	tab.Go(s.URL)
	tab.Wait(`document.querySelector("#name-dialog").open`)
	tab.WaitText("#name-error", "A name has 1 to 32 characters.")
	tab.Wait(`document.querySelector("textarea").disabled && document.querySelector(".send").disabled`)
	tab.Write("#name", "Ada")
	tab.WaitText(".state", "Connected")
	tab.Wait(`!document.querySelector("textarea").disabled`)
	tab.Go(s.URL)
	tab.WaitText(".state", "Connected")
	tab.Wait(`document.querySelector("#me").checkVisibility({ visibilityProperty: true })`)
	tab.WaitText("#me", "Ada")

	tab.MayLoseServer()
	tab.WaitText(".people", "Ada")
	const strength = `getComputedStyle(document.querySelector(".people li")).color`
	before := browser.Eval[string](tab, strength)
	s.Stop()
	tab.Wait(strength + " !== " + browser.Quoted(before)) // who was there
	s.Start()
	tab.Wait(strength + " === " + browser.Quoted(before))
}

// program is the example as a process that can be killed.
type program struct {
	t          *testing.T
	addr, file string
	cmd        *exec.Cmd
}

func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], "-addr", p.addr, "-history", p.file)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(line), "listening at http://")
	if err != nil || !ok {
		p.t.Fatalf("it says %q, %v", line, err)
	}
	p.addr = url
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}

// The server is killed under two windows and started again. Nothing is missing in them, not even what was said
// before they were back, and nothing comes twice.
func testKill(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	p := &program{t: t, addr: "127.0.0.1:0", file: filepath.Join(t.TempDir(), "chat.db")}
	p.start()
	t.Cleanup(func() { p.kill() })
	url := "http://" + p.addr
	ada, bob := enter(t, b, url, "Ada"), enter(t, b, url, "Bob")
	ada.MayLoseServer()
	bob.MayLoseServer()
	ada.Write("textarea", "one")
	bob.WaitText(".messages", "one")
	bob.Write("textarea", "two")
	ada.WaitText(".messages", "two")

	p.kill()
	for _, tab := range []*browser.Tab{ada, bob} {
		tab.Wait(`document.querySelector(".state").dataset.state === "waiting"`)
	}
	ada.Write("textarea", "three")
	ada.WaitText(".hint .note", "Messages wait")
	ada.Freeze()
	bob.Freeze()
	p.start()
	cyn := visitor{wsroomtest.Dial(t, nil, url+"/ws/general?name=Cyn&me=cyn")}
	hello := cyn.next("hello")
	if len(hello.Log) != 2 || len(hello.People) != 1 {
		t.Errorf("the server knows %+v", hello)
	}
	for _, text := range []string{"four", "five", "six"} {
		cyn.say(text, text)
		cyn.next("text")
	}
	ada.Thaw()
	bob.Thaw()

	said := `[...document.querySelectorAll(".messages .said")].map((e) => e.innerText).join(" ")`
	for _, tab := range []*browser.Tab{ada, bob} {
		tab.WaitText(".state", "Connected")
		tab.Wait(said + ` === "one two four five six three"`)
		if n := browser.Eval[int](tab, `document.querySelectorAll(".gap, .outbox li").length`); n != 0 {
			t.Error("the page says that something is missing, or not sent")
		}
	}
	cyn.CloseNow()
	bob.WaitText(".people", "Cyn")
}

// The connection breaks while the server goes on: the pages are sent what they have missed, and no hello.
func testBreak(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	var hub *wsroom.Hub
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
		h, handler := unkept(t)()
		hub = h
		return h, handler
	})
	ada, bob := enter(t, b, s.URL, "Ada"), enter(t, b, s.URL, "Bob")
	ada.Write("textarea", "one")
	bob.WaitText(".messages", "one")
	ada.WaitText(".people", "Bob")
	for i := range 3 {
		hub.ToAll().Close(websocket.StatusServiceRestart, "")
		ada.Wait(`document.querySelector(".state").dataset.state === "waiting"`)
		bob.WaitText(".state", "Connected")
		text := fmt.Sprint("again ", i)
		bob.Write("textarea", text)
		ada.WaitText(".messages", text)
		ada.WaitText(".state", "Connected")
		ada.Write("textarea", "and "+text)
		bob.WaitText(".messages", "and "+text)
	}
	for _, tab := range []*browser.Tab{ada, bob} {
		tab.Wait(`document.querySelectorAll(".said").length === 7`)
		if n := browser.Eval[int](tab, `document.querySelectorAll(".gap, .messages .left, .outbox li").length`); n != 0 {
			t.Error("the page says that something is missing, that somebody has left, or that a text isn't sent")
		}
		tab.WaitText(".count", "2")
	}
}

func testHostile(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, unkept(t))
	ada, eve := enter(t, b, s.URL, "Ada"), enter(t, b, s.URL, "Eve")
	for _, hostile := range browser.Hostile {
		name := string([]rune(hostile)[:min(32, len([]rune(hostile)))])
		eve.Click("#me")
		eve.Write("#name", name)
		ada.WaitText(".people", browser.Plain(name))
		eve.Write("textarea", hostile)
		ada.Wait(`[...document.querySelectorAll(".said")].at(-1).textContent === ` + browser.Quoted(hostile))
		ada.WaitText(".messages", browser.Plain(name))
		ada.CheckUnharmed()
		eve.CheckUnharmed()
	}
}
