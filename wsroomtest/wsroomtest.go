// Package wsroomtest is for hubs what net/http/httptest is for handlers. Its clients for tests need no port
// and no sleep. When something else comes than a test expects, they say what came.
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
// A client is connected to any http.Handler, such as a hub or a router in front of one. A real net/http
// server and coder/websocket's client talk over a line in memory. A client can also be connected by URL to
// a running server. The line can stall, as with a client that doesn't read. It can be cut, as when a phone
// loses its network. A client [WithCursor] comes back to where another one was.
//
// # Time
//
// A client waits only for events, and one bound applies to all waits: [WithTimeout]. Nothing sleeps. In a
// bubble of testing/synctest the hub, the server, the line and the clients run on fake time. There
// heartbeats, timeouts, expiry and draining take no real time, and [Client.ExpectNothing] is exact. Make
// the hub and dial in the bubble, with the bubble's t, and not by URL.
//
// # Concurrency
//
// A client's methods may fail the test, so they belong to the test's goroutine. Only [Client.Stall],
// [Client.Resume], [Client.Cut] and [Client.CloseNow] may be called from any goroutine. Different clients
// are independent of each other.
package wsroomtest
