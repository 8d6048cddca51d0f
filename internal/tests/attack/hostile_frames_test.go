package attack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// frameOf is a frame with this first byte, masked or not, whose payload is n times x.
func frameOf(first byte, masked bool, n int) []byte {
	f := kit.RawFrame(first, strings.Repeat("x", n))
	if !masked {
		mask := len(f) - n - 4
		f[1] &^= 0x80
		f = append(f[:mask], f[mask+4:]...)
	}
	return f
}

// legal reports whether a client may begin with such a frame (RFC 6455, section 5.2; no extension is
// negotiated). A close frame's payload of many x is no code.
func legal(first byte, masked bool, n int) bool {
	switch first {
	case 0x01, 0x02, 0x81, 0x82:
		return masked
	case 0x89, 0x8a:
		return masked && n <= 125
	case 0x88:
		return masked && n == 0
	}
	return false
}

// Each frame that a client must not begin with is answered with 1002 at once and reaches nobody.
func TestHostileFirstFrames(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) { c.SendTextToThisRoom("binary") }))
	srv := kit.Serve(t, hub)
	room := kit.Dial(t, srv, "/a")
	var wg sync.WaitGroup
	free := make(chan struct{}, 16)
	for i := range 256 * 2 * 3 {
		first, masked, n := byte(i), i>>8&1 == 1, []int{0, 125, 126}[i>>9]
		if legal(first, masked, n) {
			continue
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			c := kit.DialRaw(t, srv, "/a")
			defer c.Close()
			watch := startWatch()
			c.Write(frameOf(first, masked, n))
			code, _, err := c.CloseFrame()
			watch.within(t, "the answer", time.Since(watch.start), 100*time.Millisecond)
			if code != 1002 {
				t.Errorf("%#02x, masked %t, length %d: code %d, %v", first, masked, n, code, err)
			}
		})
	}
	wg.Wait()
	room.SendText("end")
	room.ExpectText("end") // and nothing before it
}

// longFrame is the header of a masked text frame with a length of 64 bits.
func longFrame(n uint64) string {
	return "\x81\xff" + string(binary.BigEndian.AppendUint64(nil, n)) + "\x00\x00\x00\x00"
}

// A message that is, or is announced to be, longer than allowed gets 1009 at once, and no memory of
// its length; a length with the top bit set breaks the protocol (RFC 6455, section 5.2).
func TestHostileLengths(t *testing.T) {
	const limit = 64 << 10
	half := strings.Repeat("x", limit/2)
	for name, test := range map[string]struct {
		sent string
		code int
	}{
		"announced 2^60":         {longFrame(1 << 60), 1009},
		"announced 2^63-1":       {longFrame(1<<63 - 1), 1009},
		"announced 2^63":         {longFrame(1 << 63), 1002},
		"announced 2^64-1":       {longFrame(1<<64 - 1), 1002},
		"announced 2^60 binary":  {"\x82" + longFrame(1 << 60)[1:], 1009},
		"in a continuation":      {string(kit.RawFrame(0x01, "x")) + "\x80" + longFrame(1 << 60)[1:], 1009},
		"whole":                  {string(kit.RawFrame(0x81, half+half+"x")), 1009},
		"in fragments":           {string(kit.RawFrame(0x01, half)) + string(kit.RawFrame(0x00, half)) + string(kit.RawFrame(0x80, "x")), 1009},
		"in fragments, unended":  {string(kit.RawFrame(0x01, half)) + string(kit.RawFrame(0x00, half)) + string(kit.RawFrame(0x00, "x")), 1009},
		"inflated":               {string(kit.RawFrame(0xc1, kit.Deflated(half+half+"x"))), 1009},
		"inflated, in fragments": {inFragments(kit.Deflated(half + half + "x")), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(0))
			srv := kit.Serve(t, hub)
			room := kit.Dial(t, srv, "/a")
			c := kit.DialRaw(t, srv, "/a", kit.OfferDeflate)
			heap := kit.HeapInUse()
			watch := startWatch()
			c.Write([]byte(test.sent))
			if code, _ := c.CloseCode(); code != test.code {
				t.Errorf("close code %d, want %d", code, test.code)
			}
			watch.within(t, "the answer", time.Since(watch.start), 100*time.Millisecond)
			if grown := kit.HeapInUse() - heap; grown > 1<<20 {
				t.Errorf("heap grew by %d KiB", grown>>10)
			}
			room.SendText("end")
			room.ExpectText("end")
		})
	}
}

// A frame that is longer than the longest message because it is compressed is no frame too long.
func TestLargestMessageMayGrowByCompression(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(0), wsroom.WithMaxMessageSize(1000))
	c := kit.DialRaw(t, kit.Serve(t, hub), "/a", kit.OfferDeflate)
	var stored bytes.Buffer
	for i := range 25 { // of 40 bytes each, none compressed
		stored.Write([]byte{0, 40, 0, 0xff &^ 40, 0xff})
		fmt.Fprintf(&stored, "%040d", i)
	}
	c.Frame(0xc1, stored.String()+"\x00")
	if first, _, err := c.Next(); first&0x0f != 1 || err != nil {
		t.Errorf("frame %#x, %v", first, err)
	}
}

// deflatedZeros is a MiB of zeros, behind which more can follow.
func deflatedZeros() string { return kit.Deflated(strings.Repeat("\x00", 1<<20)) + "\x00\x00\xff\xff" }

// inFragments is a compressed message in two frames.
func inFragments(p string) string {
	return string(kit.RawFrame(0x41, p[:len(p)/2])) + string(kit.RawFrame(0x80, p[len(p)/2:]))
}

// A hundred bombs, each a GiB of zeros in a MB, take no memory, nor do those in frames that are short enough
// to be let in.
func TestHostileBombs(t *testing.T) {
	block := deflatedZeros()
	small := strings.Repeat(block, 60<<10/len(block))
	for name, sent := range map[string][]byte{
		"a GiB":        kit.RawFrame(0xc1, strings.Repeat(block, 1<<10)),
		"60 KiB of it": kit.RawFrame(0xc1, small),
		"in fragments": []byte(inFragments(small)),
	} {
		t.Run(name, func(t *testing.T) {
			hub := wsroom.New(wsroom.OnText(kit.DiscardText), wsroom.WithCompression(0))
			srv := kit.Serve(t, hub)
			conns := make([]*kit.RawConn, 100)
			for i := range conns {
				conns[i] = kit.DialRaw(t, srv, "/a", kit.OfferDeflate)
			}
			heap := kit.HeapInUse()
			var wg sync.WaitGroup
			for _, c := range conns {
				wg.Go(func() {
					go c.Write(sent) // it may fail: nobody reads all of it
					if code, _, err := c.CloseFrame(); code != 1009 {
						t.Errorf("close code %d, want 1009; %v", code, err)
					}
				})
			}
			wg.Wait()
			if grown := kit.HeapInUse() - heap; grown > 2<<20 {
				t.Errorf("heap grew by %d KiB", grown>>10)
			}
		})
	}
}

// Text that isn't UTF-8 ends its sender with 1007, also where a frame's end cuts a character, and
// reaches nobody; text whose characters frames cut is text.
func TestHostileText(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(0))
	srv := kit.Serve(t, hub)
	room := kit.Dial(t, srv, "/a")
	for _, bad := range []string{
		"\xff", "\xc3(", "\x80", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "ok\xe2\x82",
	} {
		for _, sent := range []string{
			string(kit.RawFrame(0x81, bad)),
			string(kit.RawFrame(0x01, bad[:1])) + string(kit.RawFrame(0x80, bad[1:])),
			string(kit.RawFrame(0x01, bad)) + string(kit.RawFrame(0x80, "")),
			string(kit.RawFrame(0xc1, kit.Deflated(bad))),
		} {
			c := kit.DialRaw(t, srv, "/a", kit.OfferDeflate)
			c.Write([]byte(sent))
			if code, _ := c.CloseCode(); code != 1007 {
				t.Errorf("%q sent as %q: close code %d, want 1007", bad, sent, code)
			}
		}
	}
	cut := kit.DialRaw(t, srv, "/a")
	cut.Frame(0x01, "\xe2\x82")
	cut.Frame(0x80, "\xac")
	room.ExpectText("€") // and nothing before it
}
