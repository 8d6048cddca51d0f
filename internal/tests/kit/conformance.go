package kit

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Offered is the extension that clients with compression offer.
const Offered = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

// ExpectAnswer reads a frame and checks it. The server may compress it or not (RFC 7692, section 6).
func (c *RawConn) ExpectAnswer(want string) {
	c.T.Helper()
	first, payload, err := c.Next()
	if err != nil {
		c.T.Fatalf("got the error %v, want %.200q", err, want)
	}
	if got := Describe(first, payload); got != strings.Replace(want, "refused", "close", 1) {
		c.T.Fatalf("got %.200q, want %.200q", got, want)
	}
}

// Describe returns a server's frame as text: its kind and its payload, inflated, or its close code.
func Describe(first byte, payload string) string {
	kind := map[byte]string{0x81: "text ", 0x82: "binary ", 0x8a: "pong ", 0xc1: "text ", 0xc2: "binary "}[first]
	switch {
	case first == 0x88 && len(payload) == 0:
		return "close 1005" // stands for a frame without a code (RFC 6455, section 7.1.5)
	case first == 0x88 && len(payload) >= 2:
		return fmt.Sprint("close ", binary.BigEndian.Uint16([]byte(payload)))
	case kind == "":
		return fmt.Sprintf("frame %#x %q", first, payload)
	case first&0x40 != 0:
		p, _ := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff")))
		payload = string(p)
	}
	return kind + payload
}

// Compressed returns a client's compressed text frame; p is deflated.
func Compressed(p string) []byte { return Masked(RawFrame(0xc1, p)) }

// mask is the key of every frame that Masked makes.
var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// Masked masks a frame of RawFrame with another key than zeros.
func Masked(frame []byte) []byte {
	at := map[byte]int{126: 4, 127: 10}[frame[1]&0x7f]
	at = max(at, 2)
	copy(frame[at:], mask[:])
	for i := range frame[at+4:] {
		frame[at+4+i] ^= mask[i%4]
	}
	return frame
}

// Deflated returns the payload of a compressed message, with a block for each part (RFC 7692, section 7.2.1).
func Deflated(parts ...string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	for _, part := range parts {
		_, _ = io.WriteString(w, part)
		_ = w.Flush()
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}
