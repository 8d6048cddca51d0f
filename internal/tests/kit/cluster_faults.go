package kit

import (
	"encoding/binary"
)

// EnvelopeSize is the size of an empty envelope, with which a node tries whether the broker is back.
const EnvelopeSize = 17

// LetterOf returns an envelope with the first message of the node with that number.
func LetterOf(node uint64, text string) []byte {
	e := binary.BigEndian.AppendUint64(make([]byte, 9, 100), node)
	e[0] = 1
	e = append(e, byte(3+len(text)), 1, 0, 1)
	return append(e, text...)
}
