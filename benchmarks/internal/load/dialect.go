package load

// A Dialect is what a server wants to hear on top of WebSocket.
type Dialect struct {
	Path     func(room string) string                             // of the handshake
	Greeting func(room string) []byte                             // first text frame, nil for none
	Welcome  string                                               // what the greeting's answer contains
	Wrap     func(dst []byte, room string, message []byte) []byte // appends the text that sends message
	Lines    bool                                                 // a frame may hold several messages, a line each
	Ping     string                                               // a text of the server's that wants Pong; where there is none, all texts are messages
	Pong     string

	Subprotocol string // which the client offers
	Controls    bool   // there are texts that aren't messages and want no answer
}

// Plain is WebSocket alone: the path names the room, a text frame is a message.
var Plain = Dialect{
	Path:     func(room string) string { return "/rooms/" + room },
	Greeting: func(string) []byte { return nil },
	Wrap:     func(dst []byte, _ string, message []byte) []byte { return append(dst, message...) },
}

// V1 is Plain for a client that speaks wsroom.v1. It has no position to come back to.
var V1 = Dialect{Path: Plain.Path, Greeting: Plain.Greeting, Wrap: Plain.Wrap, Subprotocol: "wsroom.v1", Controls: true}

// Centrifuge is the JSON protocol of centrifuge: connect and subscribe in one frame, publish
// commands, and frames that hold several replies and pushes.
var Centrifuge = Dialect{
	Path: func(string) string { return "/connection/websocket" },
	Greeting: func(room string) []byte {
		return []byte(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + room + `"}}`)
	},
	Welcome: `"id":2`,
	Wrap: func(dst []byte, room string, message []byte) []byte {
		dst = append(dst, `{"id":3,"publish":{"channel":"`...)
		dst = append(dst, room...)
		dst = append(dst, `","data":`...)
		return append(append(dst, message...), "}}"...)
	},
	Lines: true,
	Ping:  "{}",
	Pong:  "{}",
}

// SocketIO is Socket.IO's protocol over Engine.IO's, with WebSocket from the start. A packet begins with its
// type: 40 connects, 42 is an event, 2 and 3 are Engine.IO's ping and pong.
var SocketIO = Dialect{
	Path:     func(string) string { return "/socket.io/?EIO=4&transport=websocket" },
	Greeting: func(room string) []byte { return []byte(`40{"room":"` + room + `"}`) },
	Welcome:  `40{"sid"`,
	Wrap: func(dst []byte, _ string, message []byte) []byte {
		dst = append(dst, `42["m",`...)
		return append(append(dst, message...), ']')
	},
	Ping: "2",
	Pong: "3",
}
