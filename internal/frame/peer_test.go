package frame

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// relaxed are limits that no test reaches which doesn't mean to.
var relaxed = &Limits{Message: patience, Write: patience}

// TestMain fails the run if a goroutine of this package is left at its end.
func TestMain(m *testing.M) {
	code := m.Run()
	for deadline := time.Now().Add(patience); code == 0; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "internal/frame.(*Conn)") {
			break
		}
		if time.Now().After(deadline) {
			os.Stderr.WriteString("goroutines are left:\n" + stacks)
			code = 1
		}
	}
	os.Exit(code)
}

// A sock is a kind of connection to test over.
type sock struct {
	name string
	raw  bool // Conn reads and writes its file descriptor
	make func(t testing.TB) (server, client net.Conn)
}

var socks = []sock{
	{"tcp", rawIO, tcpPair},
	{"unix", rawIO, unixPair},
	{"wrapped", false, func(t testing.TB) (net.Conn, net.Conn) {
		server, client := tcpPair(t)
		return struct{ net.Conn }{server}, client
	}},
	{"pipe", false, pipePair},
	{"tls", false, func(t testing.TB) (net.Conn, net.Conn) { return tlsOver(tcpPair(t)) }},
}

// overSocks runs f over each kind of connection.
func overSocks(t *testing.T, f func(t *testing.T, s sock)) {
	for _, s := range socks {
		t.Run(s.name, func(t *testing.T) { f(t, s) })
	}
}

func pipePair(t testing.TB) (server, client net.Conn) {
	server, client = net.Pipe()
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func tcpPair(t testing.TB) (server, client net.Conn) { return pair(t, "tcp", "127.0.0.1:0") }

func unixPair(t testing.TB) (server, client net.Conn) {
	dir, err := os.MkdirTemp("", "ws") // t.TempDir's path can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return pair(t, "unix", filepath.Join(dir, "s"))
}

func pair(t testing.TB, network, address string) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// tlsOver returns the two ends of a TLS connection whose handshake is done.
func tlsOver(server, client net.Conn) (net.Conn, net.Conn) {
	cert, err := certificate()
	if err != nil {
		panic(err)
	}
	s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}})
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error)
	go func() { shaken <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		panic(err)
	}
	if err := <-shaken; err != nil {
		panic(err)
	}
	return s, c
}

// hub is an Owner that does what the real one does: control frames go out at once, sends when the
// wire lets data pass.
type hub struct {
	wire *Conn

	mu       sync.Mutex
	controls []string // opcode and payload
	sent     int      // calls of MessageSent
	failed   error
	closed   int
	readErr  error         // of ReadFailed, the first
	empty    int           // calls of EmptyFrame
	pongs    []string      // that Pong knew
	oversize int           // calls of Oversized
	free     chan struct{} // gets a token for each call of MessageSent
	woken    chan struct{} // gets a token for each call of Wake
}

// newWire returns a Conn over the socket, of a hub that relays control frames.
func newWire(socket net.Conn, early []byte, limits *Limits) (*Conn, *hub) {
	h := &hub{free: make(chan struct{}, 1), woken: make(chan struct{}, 100)}
	h.wire = NewConn(socket, early, h, limits)
	return h.wire, h
}

func (h *hub) Control(opcode byte, payload []byte) (taken bool) {
	h.mu.Lock()
	h.controls = append(h.controls, fmt.Sprintf("%#x %q", opcode, payload))
	h.mu.Unlock()
	h.wire.Lock()
	defer h.wire.Unlock()
	if !h.wire.shut {
		_ = h.wire.Send(AppendControl(nil, opcode, payload))
		h.wire.shut = opcode == Close
	}
	return true
}

func (h *hub) EmptyFrame(int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.empty++
}

func (h *hub) Oversized() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.oversize++
}

func (h *hub) Wake() { h.woken <- struct{}{} }

// Pong knows the payloads that begin with "known".
func (h *hub) Pong(payload []byte) bool {
	if !bytes.HasPrefix(payload, []byte("known")) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pongs = append(h.pongs, string(payload))
	return true
}

func (h *hub) Unmasked() {}

func (h *hub) MessageSent() {
	h.mu.Lock()
	h.sent++
	h.mu.Unlock()
	select {
	case h.free <- struct{}{}:
	default:
	}
}

func (h *hub) Failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = err
}

func (h *hub) ReadFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr == nil {
		h.readErr = err
	}
}

func (h *hub) Closed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed++
}

func (h *hub) counts() (controls []string, sent, closed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.controls, h.sent, h.closed
}

// send sends a data frame once no message in several frames is under way.
func (h *hub) send(frame []byte) error {
	for !h.wire.Lock() {
		h.wire.Unlock()
		<-h.free
	}
	defer h.wire.Unlock()
	if h.wire.CanTry() && len(frame)%2 == 0 {
		n, err := h.wire.TrySend(frame)
		if err != nil {
			return err
		}
		frame = frame[n:]
	}
	return h.wire.Send(frame)
}

// accept returns coder/websocket's server side over conn, with buffers of the sizes that the hub
// gives it. A Conn does the inflating.
func accept(t testing.TB, conn net.Conn, deflate bool) *websocket.Conn {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, h := range []string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions: permessage-deflate",
	} {
		key, value, _ := strings.Cut(h, ": ")
		r.Header.Set(key, value)
	}
	opts := &websocket.AcceptOptions{CompressionThreshold: 64}
	if wire, ok := conn.(*Conn); ok && deflate {
		wire.AcceptDeflate()
	} else if deflate {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	ws, err := websocket.Accept(upgrader{httptest.NewRecorder(), conn}, r, opts)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

type upgrader struct {
	http.ResponseWriter
	conn net.Conn
}

func (u upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return u.conn, bufio.NewReadWriter(bufio.NewReaderSize(u.conn, 16), bufio.NewWriterSize(u.conn, 16)), nil
}

// dial returns coder/websocket's client side over conn.
func dial(t testing.TB, conn io.ReadWriteCloser, deflate bool) *websocket.Conn {
	t.Helper()
	opts := &websocket.DialOptions{HTTPClient: &http.Client{Transport: shaker{conn}}, CompressionThreshold: 64}
	if deflate {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	ws, _, err := websocket.Dial(t.Context(), "ws://test", opts)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { ws.CloseNow() })
	return ws
}

// shaker is a RoundTripper that answers a handshake by itself.
type shaker struct{ conn io.ReadWriteCloser }

func (s shaker) RoundTrip(r *http.Request) (*http.Response, error) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	h := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Accept": {base64.StdEncoding.EncodeToString(sum[:])},
	}
	if e := r.Header.Get("Sec-WebSocket-Extensions"); e != "" {
		h.Set("Sec-WebSocket-Extensions", e)
	}
	return &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: h, Body: s.conn}, nil
}

// canned is a connection that has said all it says, and swallows what is written.
type canned struct{ io.Reader }

func (canned) Write(p []byte) (int, error) { return len(p), nil }
func (canned) Close() error                { return nil }

// wireFrame is a frame as the tests' own parser sees it.
type wireFrame struct {
	first   byte // FIN, RSV and opcode
	masked  bool
	payload string // unmasked
	size    int    // on the wire
}

func (f wireFrame) opcode() byte  { return f.first & 0x0f }
func (f wireFrame) fin() bool     { return f.first&0x80 != 0 }
func (f wireFrame) control() bool { return f.opcode() >= 8 }

// readFrame reads one frame, by RFC 6455, section 5.2.
func readFrame(r io.Reader) (wireFrame, error) {
	var b [14]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return wireFrame{}, err
	}
	f := wireFrame{first: b[0], masked: b[1]&0x80 != 0, size: 2}
	n, extra := uint64(b[1]&0x7f), 0
	switch n {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	if f.masked {
		extra += 4
	}
	if _, err := io.ReadFull(r, b[2:2+extra]); err != nil {
		return f, io.ErrUnexpectedEOF
	}
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		n = binary.BigEndian.Uint64(b[2:])
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return f, io.ErrUnexpectedEOF
	}
	f.size += extra + len(p)
	if f.masked {
		for i, key := 0, b[extra-2:extra+2]; i < len(p); i++ {
			p[i] ^= key[i%4]
		}
	}
	f.payload = string(p)
	return f, nil
}

// parse splits b into frames.
func parse(t testing.TB, b []byte) (frames []wireFrame) {
	t.Helper()
	for r := bytes.NewReader(b); r.Len() > 0; {
		f, err := readFrame(r)
		if err != nil {
			t.Fatalf("after %d frames: %v", len(frames), err)
		}
		frames = append(frames, f)
	}
	return frames
}

// build is a frame whose length stands in a field of the given width: 0, 2 or 8 bytes. A client's is
// masked.
func build(first byte, payload string, width int, client bool) []byte {
	b := []byte{first, byte(len(payload))}
	switch width {
	case 2:
		b = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	case 8:
		b = binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(len(payload)))
	}
	if !client {
		return append(b, payload...)
	}
	b[1] |= 0x80
	key := []byte{0xa1, 0x5e, 0x00, 0x7f}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// frameOf is a frame of the shortest form: a client's, which is masked, or a server's.
func frameOf(first byte, payload string, client bool) []byte {
	switch n := len(payload); {
	case n <= 125:
		return build(first, payload, 0, client)
	case n <= 0xffff:
		return build(first, payload, 2, client)
	default:
		return build(first, payload, 8, client)
	}
}

// fromClient is a client's frame.
func fromClient(first byte, payload string) []byte { return frameOf(first, payload, true) }

// fill is a payload of n bytes, of which no part looks like another.
func fill(n int, seed uint32) string {
	b := make([]byte, 0, n+4)
	for x := seed*2654435761 + 1; len(b) < n; {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return string(b[:n])
}

// mustWrite writes p from another goroutine and returns a function that waits for its end.
func mustWrite(t testing.TB, w io.Writer, p []byte) (wait func()) {
	done := make(chan error, 1)
	go func() {
		_, err := w.Write(p)
		done <- err
	}()
	return func() {
		t.Helper()
		if err := receive(t, done, "a write's end"); err != nil {
			t.Error(err)
		}
	}
}

// receive waits for a value of the channel.
func receive[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// until waits for a condition that no event tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
