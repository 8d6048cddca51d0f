package kit

import (
	"encoding/binary"
)

// EnvelopeSize is that of an empty envelope, by which a node looks whether the broker is back.
const EnvelopeSize = 17

// LetterOf is an envelope with a first message, of a node of that number.
func LetterOf(node uint64, text string) []byte {
	e := binary.BigEndian.AppendUint64(make([]byte, 9, 100), node)
	e[0] = 1
	e = append(e, byte(3+len(text)), 1, 0, 1)
	return append(e, text...)
}
