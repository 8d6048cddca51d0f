package wsroomtest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

type point struct{ X, Y int }

// Each method fails its test, where it is to, and says what came instead. "" stands for a test that passes.
func TestFailuresSayWhatCameInstead(t *testing.T) {
	type client = *wsroomtest.Client
	type hub = *wsroom.Hub
	for name, tc := range map[string]struct {
		test func(t testing.TB, hub hub, c client)
		want string // all of the failure, or its beginning if it ends in "..."
	}{
		"text": {func(t testing.TB, hub hub, c client) { hub.SendTextToAll("hi"); c.ExpectText("hi") }, ""},
		"another text": {
			func(t testing.TB, hub hub, c client) {
				hub.SendTextToAll("hi")
				hub.SendTextToAll("ho")
				hub.SendTextToAll("he")
				synctest.Wait()
				c.ExpectText("hi", "hello")
			},
			`ann: want the text "hello", got the text "ho"
	taken last:
		the text "hi"
		the text "ho"
	not taken:
		the text "he"`,
		},
		"no text": {
			func(t testing.TB, hub hub, c client) { c.ExpectText("hi") },
			`ann: want the text "hi", but nothing came for 10s`,
		},
		"one of several, with a time of its own": {
			func(t testing.TB, hub hub, _ client) {
				wsroomtest.DialN(t, 2, hub, "/a", wsroomtest.WithTimeout(time.Minute))[1].ExpectText("hi")
			},
			`/a #2: want the text "hi", but nothing came for 1m0s`,
		},
		"the end instead of a text": {
			func(t testing.TB, hub hub, c client) { hub.ToAll().Close(4000, "bye"); c.ExpectText("hi") },
			`ann: want the text "hi", but the connection has ended: close code 4000, reason "bye"`,
		},
		"a text before the end": {
			func(t testing.TB, hub hub, c client) {
				hub.SendTextToAll("hi")
				hub.ToAll().Close(4000, "bye")
				if reason := c.ExpectClose(4000); reason != "bye" {
					t.Errorf("reason %q", reason)
				}
				c.ExpectText("hi")
				c.ExpectNothing()
			}, "",
		},
		"binary for text": {
			func(t testing.TB, hub hub, c client) { hub.ToAll().SendBinary([]byte("hi\xff")); c.ExpectText("hi") },
			"ann: want the text \"hi\", got the binary message \"hi\\xff\"\n\ttaken last:...",
		},
		"text for binary": {
			func(t testing.TB, hub hub, c client) { hub.SendTextToAll("hi"); c.ExpectBinary([]byte("hi")) },
			"ann: want the binary message \"hi\", got the text \"hi\"\n\ttaken last:...",
		},
		"another kind": {
			func(t testing.TB, hub hub, c client) { hub.SendTextToAll("hi"); c.NextBinary() },
			"ann: want a binary message, got the text \"hi\"\n\ttaken last:...",
		},
		"a long text": {
			func(t testing.TB, hub hub, c client) {
				hub.SendTextToAll(strings.Repeat("x", 1000))
				c.ExpectText(strings.Repeat("y", 201))
			},
			`ann: want the text "` + strings.Repeat("y", 200) + `"… and 1 bytes more, got the text "` + strings.Repeat("x", 200) + `"… and 800 bytes more...`,
		},
		"JSON": {
			func(t testing.TB, hub hub, c client) {
				hub.SendTextToAll(` { "Y":2e0, "X" : 1.0 }`)
				hub.SendTextToAll(`[12345678901234567890]`)
				hub.SendTextToAll(`{"X":3,"Y":4}`)
				c.ExpectJSON(point{1, 2}, json.RawMessage(`[12345678901234567890]`))
				var p point
				if c.NextJSON(&p); p != (point{3, 4}) {
					t.Errorf("got %v", p)
				}
			}, "",
		},
		"other JSON": {
			func(t testing.TB, hub hub, c client) {
				hub.SendTextToAll(`{"a":{"b":[1,2,{"c":"x"}]},"more":null,"n":12345678901234567890}`)
				c.ExpectJSON(json.RawMessage(`{"a":{"b":[1,3,{"c":"y"},4]},"less":[],"n":12345678901234567891}`))
			},
			`ann: not the JSON that is wanted:
	.a.b[1]: got 2, want 3
	.a.b[2].c: got "x", want "y"
	.a.b[3]: got nothing, want 4
	.less: got nothing, want []
	.more: got null, want nothing
	.n: got 12345678901234567890, want 12345678901234567891
	got  {"a":{"b":[1,2,{"c":"x"}]},"more":null,"n":12345678901234567890}
	want {"a":{"b":[1,3,{"c":"y"},4]},"less":[],"n":12345678901234567891}
	taken last:
		the text {"a":{"b":[1,2,{"c":"x"}]},"more":null,"n":12345678901234567890}`,
		},
		"no JSON": {
			func(t testing.TB, hub hub, c client) { hub.SendTextToAll("hello"); c.ExpectJSON(1) },
			"ann: not the JSON that is wanted:\n\tit doesn't decode: invalid character 'h' looking for beginning of value...",
		},
		"JSON of another type": {
			func(t testing.TB, hub hub, c client) { hub.SendTextToAll(`"x"`); c.NextJSON(new(point)) },
			`ann: the text "\"x\"" doesn't decode into a *wsroomtest_test.point: json: cannot unmarshal...`,
		},
		"something": {
			func(t testing.TB, hub hub, c client) {
				for i := range 7 {
					hub.SendTextToAll(fmt.Sprint(i))
				}
				c.ExpectNothing()
			},
			"ann: want nothing, got:\n\t\tthe text \"0\"\n\t\tthe text \"1\"\n\t\tthe text \"2\"\n\t\tthe text \"3\"\n\t\tthe text \"4\"\n\t\tand 2 more...",
		},
		"messages while cut": {
			func(t testing.TB, hub hub, c client) { c.Cut(); c.Drain() },
			"ann: Drain proves nothing now\n\tits line is cut",
		},
		"the end instead of nothing": {
			func(t testing.TB, hub hub, c client) { hub.ToAll().Close(4000, "bye"); c.ExpectNothing() },
			`ann: want nothing, but the connection has ended: close code 4000, reason "bye"`,
		},
		"nothing while stalled": {
			func(t testing.TB, hub hub, c client) { c.Stall(); c.ExpectNothing() },
			"ann: ExpectNothing proves nothing now\n\tit is stalled, until Resume",
		},
		"a text while cut": {
			func(t testing.TB, hub hub, c client) { c.Cut(); hub.SendTextToAll("hi"); c.ExpectText("hi") },
			"ann: want the text \"hi\", but nothing came for 10s\n\tits line is cut",
		},
		"another code": {
			func(t testing.TB, hub hub, c client) { hub.ToAll().Close(4000, "bye"); c.ExpectClose(4001) },
			`ann: want the end with close code 4001, got: close code 4000, reason "bye"`,
		},
		"no end": {
			func(t testing.TB, hub hub, c client) { hub.SendTextToAll("hi"); synctest.Wait(); c.ExpectClose(4001) },
			"ann: want the end with close code 4001, but it lives on for 10s\n\tnot taken:\n\t\tthe text \"hi\"",
		},
		"no close frame": {
			func(t testing.TB, hub hub, c client) {
				hub.Members("/a")[0].WebSocket().CloseNow()
				c.ExpectClose(websocket.StatusNormalClosure)
			},
			"ann: want the end with close code 1000, got: no close frame (1006): failed to get reader: ...",
		},
		"abnormal closure": {
			func(t testing.TB, hub hub, c client) {
				hub.Members("/a")[0].WebSocket().CloseNow()
				c.ExpectClose(websocket.StatusAbnormalClosure)
			}, "",
		},
		"a send after the end": {
			func(t testing.TB, hub hub, c client) {
				hub.ToAll().Close(4000, "")
				c.ExpectClose(4000)
				c.SendText("hi")
			},
			"ann: sending the text \"hi\": ...",
		},
		"sends that aren't read": {
			func(t testing.TB, hub hub, c client) {
				c.SendText("stuck")
				synctest.Wait()
				c.SendText(strings.Repeat("x", 65<<10))
			},
			"ann: sending the text \"" + strings.Repeat("x", 200) + "\"… and 66360 bytes more: the server hasn't read for 10s...",
		},
		"no JSON to send": {
			func(t testing.TB, hub hub, c client) { c.SendJSON(func() {}) },
			"ann: SendJSON: json: unsupported type: func()",
		},
		"Close": {
			func(t testing.TB, hub hub, c client) { c.Close(4000, "bye"); c.ExpectClose(4000); c.Close(4001, "") }, "",
		},
		"a room without a cursor": {
			func(t testing.TB, hub hub, c client) { c.ExpectRoom("/a", false) }, "ann: ExpectRoom needs WithCursor",
		},
		"another cursor": {
			func(t testing.TB, hub hub, c client) {
				wsroomtest.Dial(t, hub, "/b", wsroomtest.WithCursor("x"))
			},
			"/b: the cursor \"x\" isn't one of Client.Cursor: ...",
		},
		"no return": {
			func(t testing.TB, hub hub, c client) {
				bob := wsroomtest.Dial(t, hub, "/b", wsroomtest.WithCursor(""))
				bob.ExpectRoom("/b", false)
				bob.ExpectRoom("/b", true)
			},
			`/b: it came to the room "/b" with resumed false, want true`,
		},
		"another room": {
			func(t testing.TB, hub hub, c client) {
				wsroomtest.Dial(t, hub, "/b", wsroomtest.WithCursor("")).ExpectRoom("/c", false)
			},
			`/b: want it in the room "/c", but nothing came for 10s`,
		},
		"Close without an answer": {
			func(t testing.TB, hub hub, c client) { c.Cut(); c.Close(4000, "") },
			"ann: want an answer to the close frame, got: ...",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnText(func(_ *wsroom.Conn, text string, err error) {
					if text == "stuck" {
						<-release
					}
				})))
				got := record(t, func(t testing.TB) {
					c := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithName("ann"))
					t.Cleanup(func() { close(release) })
					synctest.Wait() // OnConnect's time is over
					tc.test(t, hub, c)
				})
				begin, rest := strings.CutSuffix(tc.want, "...")
				if got != tc.want && !(rest && strings.HasPrefix(got, begin)) {
					t.Errorf("got  %s\nwant %s", got, tc.want)
				}
			})
		})
	}
}

// Outside a bubble a server that doesn't read can't say that nothing comes.
func TestNothingNeedsAServerThatReads(t *testing.T) {
	t.Parallel()
	reads, release := make(chan struct{}), make(chan struct{})
	hub := wsroom.New(wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
		if err == nil {
			close(reads)
			<-release
		}
	}))
	got := record(t, func(t testing.TB) {
		c := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithTimeout(time.Second))
		t.Cleanup(func() { close(release) })
		c.SendText("stuck")
		<-reads
		c.ExpectNothing()
	})
	want := "/a: ExpectNothing: no answer to a ping within 1s: the server isn't reading; is a callback stuck?"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Dials that fail, and refusals that don't come, say what did.
func TestDialFailuresSayWhatCameInstead(t *testing.T) {
	hub := wsroom.New(wsroom.WithAuthorize(func(r *http.Request, _ string) error {
		switch r.URL.Path {
		case "/panics":
			panic(errors.New("oh"))
		case "/refused":
			return &wsroom.StatusError{Status: 401, Message: "who are you?"}
		}
		return nil
	}))
	for name, tc := range map[string]struct {
		test func(t testing.TB)
		want string
	}{
		"refused":     {func(t testing.TB) { wsroomtest.Dial(t, hub, "/refused") }, `/refused: dial: status 401: "who are you?"`},
		"not refused": {func(t testing.TB) { wsroomtest.Refused(t, hub, "/a", 401) }, "/a: want a refusal with status 401, got a connection"},
		"another status": {
			func(t testing.TB) { wsroomtest.Refused(t, hub, "/refused", 403) },
			`/refused: want a refusal with status 403, got: dial: status 401: "who are you?"`,
		},
		"as wanted": {func(t testing.TB) { wsroomtest.Refused(t, hub, "/refused", 401) }, ""},
		"a panic": {
			func(t testing.TB) { wsroomtest.Dial(t, hub, "/panics") },
			"/panics: dial: failed to WebSocket dial: failed to send handshake request: Get \"http://example.com/panics\": EOF\n\tthe server's log: http: panic serving 192.0.2.1:1234: oh\ngoroutine ...",
		},
		"no path": {func(t testing.TB) { wsroomtest.Dial(t, hub, "a") }, `wsroomtest: the path "a" doesn't begin with a slash`},
		"no server": {
			func(t testing.TB) { wsroomtest.Dial(t, nil, "http://127.0.0.1:1/a") },
			`http://127.0.0.1:1/a: dial: failed to WebSocket dial: ...`,
		},
	} {
		begin, rest := strings.CutSuffix(tc.want, "...")
		if got := record(t, tc.test); got != tc.want && !(rest && strings.HasPrefix(got, begin)) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, tc.want)
		}
	}
}

// A test whose callbacks don't return fails, with their stacks.
func TestStuckCallbacksFailTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		got := record(t, func(t testing.TB) {
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnText(func(*wsroom.Conn, string, error) { <-release })))
			wsroomtest.Dial(t, hub, "/a").SendText("x")
		})
		close(release)
		for _, want := range []string{
			"/a: hung up 10s ago, and the server hasn't let go; is a callback stuck?\n",
			"the hub's Shutdown: wsroom: shutdown: context deadline exceeded; is a callback stuck?\n",
			"TestStuckCallbacksFailTheTest.func1.1.1+",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s\nlacks %s", got, want)
			}
		}
	})
}

// blocker is JSON that takes its time.
type blocker struct{ release chan struct{} }

func (b blocker) MarshalJSON() ([]byte, error) { <-b.release; return []byte("1"), nil }

// A goroutine that is left inside the hub after all callbacks have returned fails the test, with its stack.
func TestGoroutinesThatAreLeftFailTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		got := record(t, func(t testing.TB) {
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				go c.SendJSON(blocker{release})
				return nil
			})))
			wsroomtest.Dial(t, hub, "/a")
		})
		close(release)
		for _, want := range []string{"goroutines of the hub are left after its Shutdown:\n", "blocker.MarshalJSON+"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q lacks %q", got, want)
			}
		}
	})
}
