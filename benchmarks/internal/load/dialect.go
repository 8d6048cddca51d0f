package load

// A Dialect is what a server wants to hear on top of WebSocket.
type Dialect struct {
	Path     func(room string) string                             // of the handshake
	Greeting func(room string) []byte                             // first text frame, nil for none
	Welcome  string                                               // what the greeting's answer contains
	Wrap     func(dst []byte, room string, message []byte) []byte // appends the text that sends message
	Lines    bool                                                 // a frame may hold several messages, a line each
}

// Plain is WebSocket alone: the path names the room, a text frame is a message.
var Plain = Dialect{
	Path:     func(room string) string { return "/rooms/" + room },
	Greeting: func(string) []byte { return nil },
	Wrap:     func(dst []byte, _ string, message []byte) []byte { return append(dst, message...) },
}

// Centrifuge is the JSON protocol of centrifuge: connect and subscribe in one frame, publish
// commands, and frames that hold several replies and pushes. Its ping is an empty object, which is
// answered with another.
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
}
