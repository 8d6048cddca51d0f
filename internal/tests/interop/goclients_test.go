package interop_test

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// goPeer is a connection of a Go client.
type goPeer interface {
	write(m message) error
	read() (message, error)
	shut() error // sends a close frame with 1000 and "done", and waits for the hub's
	socket() net.Conn
}

// goClient goes through the script with a connection that dial makes. dial reports the extensions
// that were negotiated.
func goClient(dial func(ctx context.Context, url string, deflate bool) (goPeer, string, error)) func(*testing.T, session) {
	return func(t *testing.T, s session) {
		url := "ws" + strings.TrimPrefix(s.url, "http")
		peer, extension, err := dial(t.Context(), url, s.extension != "")
		if err != nil {
			t.Fatal(err)
		}
		defer peer.socket().Close()
		peer.socket().SetDeadline(time.Now().Add(patience))
		if !strings.HasPrefix(extension, s.extension) {
			t.Errorf("extension %q, want %q", extension, s.extension)
		}
		for _, want := range script() {
			if err := peer.write(want); err != nil {
				t.Fatal(err)
			}
			if got, err := peer.read(); err != nil || got.String() != want.String() {
				t.Fatalf("got %v, %v, want %v", got, err, want)
			}
		}
		if s.clean {
			if err := peer.shut(); err != nil {
				t.Errorf("close handshake: %v", err)
			}
		}
	}
}

// gorilla sends what is longer than its buffer in fragments.
type gorillaPeer struct{ conn *websocket.Conn }

func dialGorilla(ctx context.Context, url string, deflate bool) (goPeer, string, error) {
	dialer := websocket.Dialer{EnableCompression: deflate, WriteBufferSize: 4 << 10}
	conn, res, err := dialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, "", err
	}
	return gorillaPeer{conn}, res.Header.Get("Sec-WebSocket-Extensions"), nil
}

func (p gorillaPeer) socket() net.Conn { return p.conn.NetConn() }

func (p gorillaPeer) write(m message) error {
	kind := websocket.BinaryMessage
	if m.text {
		kind = websocket.TextMessage
	}
	return p.conn.WriteMessage(kind, []byte(strings.Join(m.parts, "")))
}

func (p gorillaPeer) read() (message, error) {
	kind, b, err := p.conn.ReadMessage()
	return message{kind == websocket.TextMessage, []string{string(b)}}, err
}

func (p gorillaPeer) shut() error {
	frame := websocket.FormatCloseMessage(1000, "done")
	if err := p.conn.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)); err != nil {
		return err
	}
	_, _, err := p.conn.ReadMessage()
	if websocket.IsCloseError(err, 1000) {
		return nil
	}
	return err
}

// gobwas sends each part as a fragment, of which long ones take several.
type gobwasPeer struct {
	conn    net.Conn
	deflate bool
}

func dialGobwas(ctx context.Context, url string, deflate bool) (goPeer, string, error) {
	var dialer ws.Dialer
	if deflate {
		dialer.Extensions = []httphead.Option{wsflate.DefaultParameters.Option()}
	}
	conn, _, hs, err := dialer.Dial(ctx, url)
	if err != nil {
		return nil, "", err
	}
	var extension string
	for _, e := range hs.Extensions {
		extension += string(e.Name)
	}
	return gobwasPeer{conn, deflate}, extension, nil
}

func (p gobwasPeer) socket() net.Conn { return p.conn }

func (p gobwasPeer) write(m message) error {
	op := ws.OpBinary
	if m.text {
		op = ws.OpText
	}
	w := wsutil.NewWriterSize(p.conn, ws.StateClientSide|ws.StateExtended, op, 4<<10)
	var state wsflate.MessageState
	state.SetCompressed(p.deflate)
	w.SetExtensions(&state)
	if p.deflate {
		f := wsflate.NewWriter(w, func(w io.Writer) wsflate.Compressor {
			f, _ := flate.NewWriter(w, flate.BestSpeed)
			return f
		})
		_, err := io.WriteString(f, strings.Join(m.parts, ""))
		return errors.Join(err, f.Close(), w.Flush())
	}
	for _, part := range m.parts {
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
		if err := w.FlushFragment(); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (p gobwasPeer) read() (message, error) {
	var state wsflate.MessageState
	r := wsutil.Reader{Source: p.conn, State: ws.StateClientSide | ws.StateExtended, Extensions: []wsutil.RecvExtension{&state}}
	head, err := r.NextFrame()
	if err != nil {
		return message{}, err
	}
	var body io.Reader = &r
	if state.IsCompressed() {
		body = wsflate.NewReader(&r, func(r io.Reader) wsflate.Decompressor { return flate.NewReader(r) })
	}
	b, err := io.ReadAll(body)
	return message{head.OpCode == ws.OpText, []string{string(b)}}, err
}

func (p gobwasPeer) shut() error {
	frame := ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "done")))
	if err := ws.WriteFrame(p.conn, frame); err != nil {
		return err
	}
	answer, err := ws.ReadFrame(p.conn)
	if err != nil {
		return err
	}
	if code, _ := ws.ParseCloseFrameData(answer.Payload); answer.Header.OpCode != ws.OpClose || code != 1000 {
		return fmt.Errorf("got %v", answer.Header)
	}
	return nil
}

// gws sends messages of several parts, and what is long, as a file, in fragments of 128 KiB.
type gwsPeer struct {
	gws.BuiltinEventHandler
	conn   *gws.Conn
	got    chan message
	closed chan error
}

func dialGws(_ context.Context, url string, deflate bool) (goPeer, string, error) {
	p := &gwsPeer{got: make(chan message, 1), closed: make(chan error, 1)}
	conn, res, err := gws.NewClient(p, &gws.ClientOption{
		Addr: url, CheckUtf8Enabled: true,
		PermessageDeflate: gws.PermessageDeflate{Enabled: deflate, Threshold: 1},
	})
	if err != nil {
		return nil, "", err
	}
	p.conn = conn
	go conn.ReadLoop()
	return p, res.Header.Get("Sec-WebSocket-Extensions"), nil
}

func (p *gwsPeer) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	p.got <- message{m.Opcode == gws.OpcodeText, []string{m.Data.String()}}
}

func (p *gwsPeer) OnClose(_ *gws.Conn, err error) { p.closed <- err }

func (p *gwsPeer) socket() net.Conn { return p.conn.NetConn() }

func (p *gwsPeer) write(m message) error {
	kind, b := gws.OpcodeBinary, []byte(strings.Join(m.parts, ""))
	if m.text {
		kind = gws.OpcodeText
	}
	if len(b) < 128<<10 && len(m.parts) == 1 {
		return p.conn.WriteMessage(kind, b)
	}
	return p.conn.WriteFile(kind, bytes.NewReader(b))
}

func (p *gwsPeer) read() (message, error) {
	select {
	case m := <-p.got:
		return m, nil
	case err := <-p.closed:
		return message{}, err
	}
}

func (p *gwsPeer) shut() error {
	if err := p.conn.WriteClose(1000, []byte("done")); err != nil {
		return err
	}
	<-p.closed
	return nil
}
