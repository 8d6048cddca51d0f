// Package wsroomtest is to hubs what net/http/httptest is to handlers: clients for tests, which need no
// port and no sleep, and which say what came when it isn't what was wanted.
//
//	func TestEveryoneHears(t *testing.T) {
//		hub := wsroomtest.CheckHub(t, newHub())
//		ann := wsroomtest.Dial(t, hub, "/chat/general", wsroomtest.WithName("ann"))
//		bob := wsroomtest.Dial(t, hub, "/chat/general", wsroomtest.WithName("bob"))
//		eve := wsroomtest.Dial(t, hub, "/chat/other", wsroomtest.WithName("eve"))
//		ann.SendText("hello")
//		ann.ExpectText("hello")
//		bob.ExpectText("hello")
//		eve.ExpectNothing()
//	}
//
// # Lines
//
// A client is connected to any http.Handler, a hub or a router in front of one, by a real net/http server
// and coder/websocket's client over a line in memory; or, by its URL, to a server that runs. The line can
// stall, as with a client that doesn't read, and be cut, as when a phone loses its network.
//
// # Time
//
// Whatever a client waits for is an event, with one bound for all, WithTimeout. Nothing sleeps. In a bubble
// of testing/synctest hub, server, line and clients run on fake time: heartbeats, timeouts, expiry and
// draining take no time then, and ExpectNothing is exact. Make the hub and dial in the bubble, with the
// bubble's t, and not by URL.
//
// # Concurrency
//
// A client's methods may fail the test and so belong to the test's goroutine, but for Stall, Resume, Cut and
// CloseNow, which any goroutine may call. Different clients are independent of each other.
package wsroomtest
