package load

import (
	"bytes"
	"math/rand/v2"
	"strconv"
)

// A message is JSON of a fixed layout, so that a member reads its stamp with no JSON parser:
//
//	{"r":"0007","s":"000000000042","t":"0000001234567890","p":"…"}
//
// r is the room, s the sequence number in that room, t the send time by the fleet's clock, and p
// fills the message up to the scenario's size.
const (
	layout     = `{"r":"0000","s":"000000000000","t":"0000000000000000","p":"`
	layoutTail = `"}`
	roomAt     = len(`{"r":"`)
	roomLen    = 4
	seqAt      = roomAt + roomLen + len(`","s":"`)
	seqLen     = 12
	timeAt     = seqAt + seqLen + len(`","t":"`)
	timeLen    = 16
)

// MinMessage is the length of the shortest message, one with nothing to fill it up.
const MinMessage = len(layout) + len(layoutTail)

var marker = []byte(layout[:roomAt])

// A stamp is what a member needs to know of a message.
type stamp struct {
	room int
	seq  uint64
	at   int64
}

// newTemplate returns a message of size bytes whose stamp is still zero. The filling is the same
// for all messages of a run: letters, or, for prose, JSON-like text that shrinks under deflate
// about as well as real messages do.
func newTemplate(size int, prose bool) []byte {
	fill := make([]byte, max(0, size-MinMessage))
	for i := range fill {
		fill[i] = 'a' + byte(i%26)
	}
	if prose {
		copy(fill, proseText(len(fill)))
	}
	return append(append([]byte(layout), fill...), layoutTail...)
}

// proseText returns n bytes of repeating keys and varying words, all of them legal inside a JSON
// string.
func proseText(n int) []byte {
	words := []string{"room", "member", "hello", "price", "order", "update", "typing", "seen", "north", "sent"}
	rng := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		b.WriteString(`{'id':` + strconv.Itoa(100000+rng.IntN(900000)) + `,'kind':'` + words[rng.IntN(len(words))])
		b.WriteString(`','text':'` + words[rng.IntN(len(words))] + ` ` + words[rng.IntN(len(words))])
		b.WriteString(`','at':` + strconv.FormatFloat(rng.Float64()*1e6, 'f', 3, 64) + `},`)
	}
	return b.Bytes()[:n]
}

// writeStamp puts s into message, a copy of a template.
func writeStamp(message []byte, s stamp) {
	putDigits(message[roomAt:roomAt+roomLen], uint64(s.room))
	putDigits(message[seqAt:seqAt+seqLen], s.seq)
	putDigits(message[timeAt:timeAt+timeLen], uint64(s.at))
}

// readStamp finds the message in text, which may wrap it in a protocol of its own.
func readStamp(text []byte) (stamp, bool) {
	at := 0
	if !bytes.HasPrefix(text, marker) {
		at = bytes.Index(text, marker)
	}
	if at < 0 || len(text)-at < MinMessage {
		return stamp{}, false
	}
	text = text[at:]
	room, ok1 := digits(text[roomAt : roomAt+roomLen])
	seq, ok2 := digits(text[seqAt : seqAt+seqLen])
	sent, ok3 := digits(text[timeAt : timeAt+timeLen])
	return stamp{int(room), seq, int64(sent)}, ok1 && ok2 && ok3
}

func putDigits(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(n%10)
		n /= 10
	}
}

func digits(p []byte) (n uint64, ok bool) {
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
