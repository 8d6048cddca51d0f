package conformance_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// exchange is a case of RFC 6455, sections 5 to 8, or of RFC 7692, section 7: what a client sends and
// what the server must answer. Where nothing in it ends the connection the client closes in the end.
type exchange struct {
	section string
	name    string
	frames  []byte   // what the client sends, all at once or bytewise
	answers []string // the server's frames in the words of describe; "refused" is a close frame not asked for
}

// A server answers every case of RFC 6455 as it must, whether compression was negotiated or not.
func TestConformance(t *testing.T) {
	for _, x := range slices.Concat(framingCases(), fragmentCases(), controlCases(), textCases(), closeCases()) {
		x.test(t, "", kit.Offered)
	}
}

// A server answers every case of RFC 7692, section 7.2, as it must.
func TestConformanceOfCompression(t *testing.T) {
	for _, x := range deflateCases() {
		x.test(t, kit.Offered)
	}
	exchange{"6.1", "compressed where that isn't negotiated", kit.Compressed("x"), answers("refused 1002")}.test(t, "")
}

// test runs the exchange over loopback sockets with each of the handshake's headers, and bytewise over
// a pipe.
func (x exchange) test(t *testing.T, headers ...string) {
	name := x.section + " " + x.name
	for _, header := range headers {
		t.Run(name+map[string]string{kit.Offered: ", compression offered"}[header], func(t *testing.T) {
			t.Parallel()
			heard := new(hearing)
			x.run(t, kit.DialRaw(t, kit.Serve(t, heard.hub()), "/a", header), heard, len(x.frames))
		})
	}
	if len(x.frames) > 1<<10 {
		return
	}
	t.Run(name+", bytewise", func(t *testing.T) {
		t.Parallel()
		heard := new(hearing)
		kit.InBubble(t, heard.hub, func(t *testing.T, s *kit.PipeServer, _ *wsroom.Hub) {
			x.run(t, s.DialRaw("/a", headers[len(headers)-1]), heard, 1)
		})
	})
}

// run has the client send pieces of at most size bytes and checks what comes back, what the hub heard,
// and the cause it saw.
func (x exchange) run(t *testing.T, client *kit.RawConn, heard *hearing, size int) {
	client.SetDeadline(time.Now().Add(kit.Patience))
	written := make(chan struct{})
	go func() {
		defer close(written)
		for piece := range slices.Chunk(x.frames, size) {
			_, _ = client.Write(piece) // fails where the server has hung up
		}
	}()
	end := "nothing"
	for _, end = range x.answers {
		client.ExpectAnswer(end)
	}
	<-written
	switch tcp, ok := client.Conn.(*net.TCPConn); {
	case strings.HasPrefix(end, "refused"):
		if ok {
			tcp.CloseWrite() // else the server waits a second for an answer to its close frame
		}
	case !strings.HasPrefix(end, "close"):
		_, _ = client.Write(closing(1000, ""))
		end = "close 1000"
		client.ExpectAnswer(end)
	}
	if first, payload, err := client.Next(); err != io.EOF {
		t.Errorf("behind the close frame came %.200q, %v", kit.Describe(first, payload), err)
	}
	heard.check(t, x.answers, end)
}

// hearing is a hub that sends every message to the sender's room, and what it heard.
type hearing struct {
	messages []string // complete once end has come
	end      chan error
}

// check wants the hub to have relayed the answers that are messages, no others, and to have seen the
// peer's own close code or, where it refused something, none.
func (h *hearing) check(t *testing.T, answers []string, end string) {
	err := kit.Await(t, h.end, "OnClose")
	var want []string
	for _, answer := range answers {
		if strings.HasPrefix(answer, "text ") || strings.HasPrefix(answer, "binary ") {
			want = append(want, answer)
		}
	}
	if !slices.Equal(h.messages, want) {
		t.Errorf("the hub relayed %.200q, want %.200q", h.messages, want)
	}
	code := -1
	fmt.Sscanf(end, "close %d", &code)
	if int(websocket.CloseStatus(err)) != code {
		t.Errorf("the cause is %v, want %s", err, end)
	}
}

func (h *hearing) hub() *wsroom.Hub {
	h.end = make(chan error, 1)
	return wsroom.New(wsroom.WithCompression(100), wsroom.WithHeartbeat(0, 0),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				h.messages = append(h.messages, "text "+text)
				if c.SendTextToThisRoom(text) != nil {
					c.Close(4999, "not to be sent")
				}
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) {
			h.messages = append(h.messages, "binary "+string(p))
			c.SendBinary(p)
		}),
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { h.end <- err }))
}

// The frames that clients of the cases send.
func text(payload string) []byte   { return kit.Masked(kit.RawFrame(0x81, payload)) }
func binaryOf(p string) []byte     { return kit.Masked(kit.RawFrame(0x82, p)) }
func ping(payload string) []byte   { return kit.Masked(kit.RawFrame(0x89, payload)) }
func pong(payload string) []byte   { return kit.Masked(kit.RawFrame(0x8a, payload)) }
func begin(payload string) []byte  { return kit.Masked(kit.RawFrame(0x01, payload)) } // of a text message
func middle(payload string) []byte { return kit.Masked(kit.RawFrame(0x00, payload)) }
func last(payload string) []byte   { return kit.Masked(kit.RawFrame(0x80, payload)) }

func closing(code uint16, reason string) []byte {
	return kit.Masked(kit.RawFrame(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason))
}

// sends is one frame behind the other.
func sends(frames ...[]byte) []byte { return slices.Concat(frames...) }

func answers(all ...string) []string { return all }

// fragments is a text message in as many fragments.
func fragments(parts ...string) []byte {
	frames := begin(parts[0])
	for _, part := range parts[1 : len(parts)-1] {
		frames = append(frames, middle(part)...)
	}
	return append(frames, last(parts[len(parts)-1])...)
}

// widened is a short frame of masked's whose length takes 2 or 8 bytes more than it needs.
func widened(more int, frame []byte) []byte {
	length := make([]byte, more)
	length[more-1] = frame[1] & 0x7f
	head := []byte{frame[0], map[int]byte{2: 0x80 | 126, 8: 0x80 | 127}[more]}
	return slices.Concat(head, length, frame[2:])
}
