package conformance_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// The cases. Where the RFC wants it otherwise, a comment says so.

func framingCases() (all []exchange) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536} {
		p := strings.Repeat("*", n)
		all = append(all,
			exchange{"5.2", fmt.Sprint("text of ", n), text(p), answers("text " + p)},
			exchange{"5.2", fmt.Sprint("binary of ", n), binaryOf(p), answers("binary " + p)})
	}
	for _, opcode := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		all = append(all, exchange{"5.2", fmt.Sprintf("reserved opcode %#x", opcode), kit.Masked(kit.RawFrame(0x80|opcode, "x")), answers("refused 1002")})
	}
	for _, bits := range []byte{0x10, 0x20, 0x30, 0x50, 0x60, 0x70} {
		all = append(all, exchange{"5.2", fmt.Sprintf("reserved bits %#x", bits), kit.Masked(kit.RawFrame(0x81|bits, "x")), answers("refused 1002")})
	}
	full := strings.Repeat("p", 125)
	return append(all, []exchange{
		{"5.2", "reserved bit on a ping", kit.Masked(kit.RawFrame(0xa9, "x")), answers("refused 1002")},
		{"5.2", "reserved bit on a close frame", kit.Masked(kit.RawFrame(0x98, "")), answers("refused 1002")},
		{"5.2", "reserved bit on a continuation", sends(begin("a"), kit.Masked(kit.RawFrame(0xa0, "b"))), answers("refused 1002")},
		{"5.2", "reserved opcode within a message", sends(begin("a"), kit.Masked(kit.RawFrame(0x83, "b"))), answers("refused 1002")},
		{"5.2", "negative length", []byte("\x81\xff\x80\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"), answers("refused 1002")},
		// The shortest form of a length is a duty of the sender; the server takes every one.
		{"5.2", "5 bytes, length in 16 bits", widened(2, text("Hello")), answers("text Hello")},
		{"5.2", "5 bytes, length in 64 bits", widened(8, text("Hello")), answers("text Hello")},
		{"5.2", "nothing, length in 16 bits", widened(2, binaryOf("")), answers("binary ")},
		{"5.2", "ping, length in 16 bits", widened(2, ping(full)), answers("pong " + full)},

		{"5.1", "unmasked text", []byte("\x81\x05Hello"), answers("refused 1002")},
		{"5.1", "unmasked ping", []byte("\x89\x00"), answers("refused 1002")},
		{"5.1", "unmasked close frame", []byte("\x88\x02\x03\xe8"), answers("refused 1002")},
		{"5.1", "unmasked continuation", sends(begin("a"), []byte("\x80\x01b")), answers("refused 1002")},
		{"5.3", "mask of zeros", kit.RawFrame(0x81, "Hello"), answers("text Hello")},
		{"5.3", "mask of ones", []byte("\x82\x85\xff\xff\xff\xff\xb7\x9a\x93\x93\x90"), answers("binary Hello")},
		{"5.3", "mask of the RFC's example", []byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), answers("text Hello")},
		{"5.3", "each frame its own mask", sends(kit.RawFrame(0x01, "Hel"), last("lo")), answers("text Hello")},
	}...)
}

func fragmentCases() []exchange {
	return []exchange{
		{"5.4", "two fragments", fragments("Hel", "lo"), answers("text Hello")},
		{"5.4", "three fragments", fragments("H", "ell", "o"), answers("text Hello")},
		{"5.4", "binary fragments", sends(kit.Masked(kit.RawFrame(0x02, "\xff")), middle("\xfe"), last("\x00")), answers("binary \xff\xfe\x00")},
		{"5.4", "empty first fragment", fragments("", "Hello"), answers("text Hello")},
		{"5.4", "empty fragments between", fragments("Hel", "", "", "lo"), answers("text Hello")},
		{"5.4", "empty last fragment", fragments("Hello", ""), answers("text Hello")},
		{"5.4", "nothing but empty fragments", fragments("", "", ""), answers("text ")},
		{"5.4", "a hundred fragments", fragments(strings.Split(strings.Repeat("x,", 99)+"x", ",")...), answers("text " + strings.Repeat("x", 100))},
		{"5.4", "ping between fragments", sends(begin("Hel"), ping("p"), last("lo")), answers("pong p", "text Hello")},
		{"5.4", "pings between all fragments", sends(begin("a"), ping("1"), middle("b"), ping("2"), last("c")), answers("pong 1", "pong 2", "text abc")},
		{"5.4", "pong between fragments", sends(begin("Hel"), pong("p"), last("lo")), answers("text Hello")},
		{"5.4", "two messages in fragments", sends(fragments("a", "b"), fragments("c", "d")), answers("text ab", "text cd")},
		{"5.4", "close frame between fragments", sends(begin("Hel"), closing(1000, "")), answers("close 1000")},
		{"5.4", "text within a message", sends(begin("a"), text("b")), answers("refused 1002")},
		{"5.4", "binary within a message", sends(begin("a"), binaryOf("b")), answers("refused 1002")},
		{"5.4", "first fragment within a message", sends(begin("a"), begin("b")), answers("refused 1002")},
		{"5.4", "continuation of nothing", middle("a"), answers("refused 1002")},
		{"5.4", "end of nothing", last("a"), answers("refused 1002")},
		{"5.4", "empty end of nothing", last(""), answers("refused 1002")},
	}
}

func controlCases() []exchange {
	full := strings.Repeat("p", 125)
	return []exchange{
		{"5.5", "ping of 126", ping(full + "p"), answers("refused 1002")},
		{"5.5", "pong of 126", pong(full + "p"), answers("refused 1002")},
		{"5.5", "close frame of 126", closing(1000, full[1:]), answers("refused 1002")},
		{"5.5", "ping in fragments", kit.Masked(kit.RawFrame(0x09, "a")), answers("refused 1002")},
		{"5.5", "pong in fragments", kit.Masked(kit.RawFrame(0x0a, "a")), answers("refused 1002")},
		{"5.5", "close frame in fragments", kit.Masked(kit.RawFrame(0x08, "\x03\xe8")), answers("refused 1002")},
		{"5.5", "ping whose length takes 64 bits", kit.Masked(kit.RawFrame(0x89, strings.Repeat("p", 65536))), answers("refused 1002")},
		{"5.5.2", "empty ping", ping(""), answers("pong ")},
		{"5.5.2", "ping with text", ping("Hello"), answers("pong Hello")},
		{"5.5.2", "ping with any bytes", ping("\x00\xff\xfe\xfd"), answers("pong \x00\xff\xfe\xfd")},
		{"5.5.2", "ping of 125", ping(full), answers("pong " + full)},
		{"5.5.2", "several pings", sends(ping("1"), ping("2"), ping("3")), answers("pong 1", "pong 2", "pong 3")},
		{"5.5.3", "pong nobody asked for", pong("x"), answers()},
		{"5.5.3", "empty pong nobody asked for", pong(""), answers()},
		{"5.5.3", "pong, then a ping", sends(pong("x"), ping("y")), answers("pong y")},
	}
}

// textCases are those of UTF-8, each whole and with every byte in a fragment of its own.
func textCases() (all []exchange) {
	for _, c := range []struct{ name, text string }{
		{"two bytes each", "κόσμε"},
		{"four bytes", "\U0001F600"},
		{"the last code point", "\U0010FFFF"},
		{"a noncharacter", "\uFFFF"},
		{"before the surrogates", "\uD7FF"},
		{"after the surrogates", "\uE000"},
		{"a byte order mark", "\uFEFFx"},
		{"the replacement character", "\uFFFD"},
		{"a NUL", "a\x00b"},
		{"a lone continuation byte", "\x80"},
		{"a continuation byte too many", "κ\xbf"},
		{"Latin-1", "caf\xe9 au lait"},
		{"a character cut after one byte of two", "\xce"},
		{"a character cut after two bytes of three", "\xe1\xbd"},
		{"a character cut after three bytes of four", "\xf0\x9f\x98"},
		{"a slash in two bytes", "\xc0\xaf"},
		{"a slash in three bytes", "\xe0\x80\xaf"},
		{"a slash in four bytes", "\xf0\x80\x80\xaf"},
		{"the largest overlong of two bytes", "\xc1\xbf"},
		{"a NUL in two bytes", "\xc0\x80"},
		{"the first surrogate", "\xed\xa0\x80"},
		{"the last surrogate", "\xed\xbf\xbf"},
		{"a pair of surrogates", "\xed\xa0\xbd\xed\xb8\x80"},
		{"beyond the last code point", "\xf4\x90\x80\x80"},
		{"five bytes", "\xf8\x88\x80\x80\x80"},
		{"six bytes", "\xfc\x84\x80\x80\x80\x80"},
		{"0xFE", "\xfe"},
		{"0xFF", "Hello\xff"},
	} {
		want := answers("text " + c.text)
		if !utf8.ValidString(c.text) {
			want = answers("refused 1007")
		}
		var bytes []string
		for i := range len(c.text) {
			bytes = append(bytes, c.text[i:i+1])
		}
		all = append(all,
			exchange{"8.1", c.name, text(c.text), want},
			exchange{"8.1", c.name + ", in fragments", fragments(append(bytes, "")...), want})
	}
	return append(all, []exchange{
		{"8.1", "ping within a character", sends(begin("\xce"), ping("x"), last("\xba")), answers("pong x", "text κ")},
		{"5.6", "binary may be anything", binaryOf("\xff\xfe\xed\xa0\x80"), answers("binary \xff\xfe\xed\xa0\x80")},
		{"5.6", "binary fragments may be anything", sends(kit.Masked(kit.RawFrame(0x02, "\xce")), last("\xff")), answers("binary \xce\xff")},
	}...)
}

func closeCases() (all []exchange) {
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		all = append(all, exchange{"7.4", fmt.Sprint("code ", code), closing(code, "bye"), answers(fmt.Sprint("close ", code))})
	}
	for _, code := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		all = append(all, exchange{"7.4", fmt.Sprint("no code ", code), closing(code, ""), answers("refused 1002")})
	}
	return append(all, []exchange{
		{"5.5.1", "close frame without a code", kit.Masked(kit.RawFrame(0x88, "")), answers("close 1005")},
		{"5.5.1", "close frame with half a code", kit.Masked(kit.RawFrame(0x88, "\x03")), answers("refused 1002")},
		{"5.5.1", "close frame with a code", closing(1000, ""), answers("close 1000")},
		{"5.5.1", "reason of 123 bytes", closing(1000, strings.Repeat("r", 123)), answers("close 1000")},
		{"5.5.1", "reason that isn't UTF-8", closing(1000, "caf\xe9"), answers("refused 1007")},
		{"5.5.1", "reason cut within a character", closing(4000, "\xce\xba\xe1\xbd"), answers("refused 1007")},
		{"5.5.1", "text behind the close frame", sends(closing(1000, ""), text("late")), answers("close 1000")},
		{"5.5.1", "ping behind the close frame", sends(closing(1000, ""), ping("late")), answers("close 1000")},
		{"5.5.1", "second close frame", sends(closing(1000, ""), closing(4000, "")), answers("close 1000")},
		{"7.1.7", "text behind what fails the connection", sends(middle("x"), text("late")), answers("refused 1002")},
		{"7.1.7", "close frame behind what fails the connection", sends(middle("x"), closing(1000, "")), answers("refused 1002")},
		{"7.4.1", "too big", binaryOf(strings.Repeat("x", 65537)), answers("refused 1009")},
		{"7.4.1", "too big in fragments", sends(begin(strings.Repeat("x", 65536)), last("x")), answers("refused 1009")},
	}...)
}

// deflateCases are for clients that negotiated permessage-deflate; what they send without compressing
// it is in the cases above.
func deflateCases() []exchange {
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00" // in one block, RFC 7692, section 7.2.3.1
	const final = "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
	long := strings.Repeat("all work and no play ", 3000)
	return []exchange{
		{"6.1", "reserved bits beside the compressed one", kit.Masked(kit.RawFrame(0xe1, hello)), answers("refused 1002")},
		{"6.1", "compressed ping", kit.Masked(kit.RawFrame(0xc9, hello)), answers("refused 1002")},
		{"6.1", "compressed pong", kit.Masked(kit.RawFrame(0xca, hello)), answers("refused 1002")},
		{"6.1", "compressed close frame", kit.Masked(kit.RawFrame(0xc8, "")), answers("refused 1002")},
		{"6.1", "compressed bit on a continuation", sends(kit.Masked(kit.RawFrame(0x41, hello[:3])), kit.Masked(kit.RawFrame(0xc0, hello[3:]))), answers("refused 1002")},
		{"6.1", "compressed bit on a continuation alone", sends(begin("a"), kit.Masked(kit.RawFrame(0xc0, "b"))), answers("refused 1002")},
		{"6.2", "compressed and not, in turn", sends(kit.Compressed(hello), text("plain"), kit.Compressed(hello)), answers("text Hello", "text plain", "text Hello")},
		{"7.2.2", "text", kit.Compressed(kit.Deflated("κόσμε")), answers("text κόσμε")},
		{"7.2.2", "binary", kit.Masked(kit.RawFrame(0xc2, kit.Deflated("\xff\x00"))), answers("binary \xff\x00")},
		{"7.2.2", "long text", kit.Compressed(kit.Deflated(long)), answers("text " + long)},
		{"7.2.2", "several blocks", kit.Compressed(kit.Deflated("Hel", "", "lo")), answers("text Hello")},
		{"7.2.2", "text that isn't UTF-8", kit.Compressed(kit.Deflated("caf\xe9")), answers("refused 1007")},
		{"7.2.2", "binary may be anything", kit.Masked(kit.RawFrame(0xc2, kit.Deflated("\xed\xa0\x80"))), answers("binary \xed\xa0\x80")},
		{"7.2.2", "too big once inflated", kit.Compressed(kit.Deflated(strings.Repeat("0", 65537))), answers("refused 1009")},
		{"7.2.2", "a block of no kind", kit.Compressed("\xff\xff\xff"), answers("refused 1002")},
		{"7.2.2", "a stored block whose length is wrong", kit.Compressed("\x00\x05\x00\x00\x00Hello\x00"), answers("refused 1002")},
		{"7.2.2", "text that isn't compressed", kit.Compressed("Hello"), answers("refused 1002")},
		{"7.2.3.1", "one block", kit.Compressed(hello), answers("text Hello")},
		{"7.2.3.1", "one block in two fragments", sends(kit.Masked(kit.RawFrame(0x41, hello[:3])), last(hello[3:])), answers("text Hello")},
		{"7.2.3.1", "bytewise, empty fragments between", sends(kit.Masked(kit.RawFrame(0x41, "")), middle(hello[:1]), middle(""), middle(hello[1:6]), last(hello[6:])), answers("text Hello")},
		{"7.2.3.1", "ping between fragments", sends(kit.Masked(kit.RawFrame(0x41, hello[:3])), ping("p"), last(hello[3:])), answers("pong p", "text Hello")},
		{"7.2.3.1", "text within a compressed message", sends(kit.Masked(kit.RawFrame(0x41, hello[:3])), text("x")), answers("refused 1002")},
		{"7.2.3.2", "the same twice", sends(kit.Compressed(hello), kit.Compressed(hello)), answers("text Hello", "text Hello")},
		{"7.2.3.2", "what refers to the message before, though the contexts end with it", kit.Compressed("\xf2\x00\x11\x00\x00"), answers("refused 1002")},
		{"7.2.3.3", "stored block", kit.Compressed("\x00\x05\x00\xfa\xffHello\x00"), answers("text Hello")},
		{"7.2.3.4", "final block", kit.Compressed(final), answers("text Hello")},
		{"7.2.3.4", "final block, and other messages", sends(kit.Compressed(final), kit.Compressed(final), text("plain"), kit.Compressed(hello)), answers("text Hello", "text Hello", "text plain", "text Hello")},
		{"7.2.3.4", "final block, and no other behind it", sends(kit.Compressed(final[:7]), kit.Compressed(hello)), answers("text Hello", "text Hello")},
		{"7.2.3.4", "final blocks", kit.Compressed(final[:7] + final[:7] + hello), answers("text HelloHelloHello")},
		{"7.2.3.5", "two blocks", kit.Compressed("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), answers("text Hello")},
		{"7.2.3.6", "empty text", kit.Compressed("\x00"), answers("text ")},
		{"7.2.3.6", "empty text of two blocks", kit.Compressed("\x02\x00"), answers("text ")},
		{"7.2.3.6", "no payload at all", kit.Compressed(""), answers("text ")},
		{"7.2.3.3", "stored block cut short", kit.Masked(kit.RawFrame(0xc2, "\x00\x0a\x00\xf5\xffHello")), answers("refused 1002")},
		{"7.2.3.1", "block cut short", kit.Compressed(hello[:4]), answers("refused 1002")},
	}
}

// An offer is accepted without context takeover, with any window of the client's and the largest of
// the server's, or declined (RFC 7692, section 7.1); of several the first that can be is.
func TestCompressionOffersAreAnswered(t *testing.T) {
	const accepted = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
	srv := kit.Serve(t, wsroom.New(wsroom.WithCompression(100)))
	for _, c := range []struct{ offers, answer string }{
		{"permessage-deflate", accepted},
		{"permessage-deflate; client_no_context_takeover", accepted},
		{"permessage-deflate; server_no_context_takeover", accepted},
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover", accepted},
		{"permessage-deflate; client_max_window_bits", accepted},
		{"permessage-deflate; client_max_window_bits=8", accepted},
		{"permessage-deflate;client_max_window_bits=15 ;server_no_context_takeover", accepted},
		{"permessage-deflate; server_max_window_bits=10, permessage-deflate", accepted},
		{"permessage-deflate; unknown, permessage-deflate; client_max_window_bits", accepted},
		{"x-unknown; a=b, permessage-deflate", accepted},
		{"permessage-deflate, permessage-deflate", accepted},
		{"permessage-deflate; server_max_window_bits=8", ""},
		{"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; server_max_window_bits=7", ""},
		{"permessage-deflate; server_max_window_bits=16", ""},
		{"permessage-deflate; server_no_context_takeover=1", ""},
		{"permessage-deflate; client_no_context_takeover=true", ""},
		{"permessage-deflate; unknown", ""},
		{"permessage-deflate; unknown=1", ""},
		{"permessage-bzip2", ""},
		{"x-webkit-deflate-frame", ""},
		{"permessage-deflate; server_max_window_bits=15", accepted + "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=14, permessage-deflate; server_max_window_bits=15; client_max_window_bits=15", accepted + "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=015", ""},
		{"permessage-deflate; client_max_window_bits=7", ""},
		{"permessage-deflate; client_max_window_bits=16", ""},
		{"permessage-deflate; client_max_window_bits=08", ""},
		{"permessage-deflate; client_max_window_bits=+9", ""},
		{"permessage-deflate; client_max_window_bits=", ""},
		{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
		{"permessage-deflate; client_max_window_bits=9; client_max_window_bits", ""},
		{"permessage-deflate;", ""},
		{"permessage-deflate; client_max_window_bits=16, permessage-deflate; client_max_window_bits=15", accepted},
		{`x-unknown; a="b, permessage-deflate, c"`, ""},
	} {
		t.Run(c.offers, func(t *testing.T) {
			p := kit.Request(t, srv, kit.UpgradeRequest("/a", "Sec-WebSocket-Extensions: "+c.offers))
			if got := p.Res.Header.Get("Sec-WebSocket-Extensions"); got != c.answer {
				t.Errorf("answer %q, want %q", got, c.answer)
			}
		})
	}
}
