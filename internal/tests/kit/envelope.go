package kit

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// EnvelopeSize is the size of an empty envelope, with which a node tries whether the broker is back.
const EnvelopeSize = 17

// FirstEnvelope returns an envelope with the first message of the node with that number.
func FirstEnvelope(node uint64, text string) []byte {
	e := binary.BigEndian.AppendUint64(make([]byte, 9, 100), node)
	e[0] = 1
	e = append(e, byte(3+len(text)), 1, 0, 1)
	return append(e, text...)
}

// Forged returns an envelope of the node that sent another one, with a message of that sequence.
func Forged(of []byte, sequence, back uint64, text string) []byte {
	message := binary.AppendUvarint(nil, sequence)
	message = binary.AppendUvarint(message, back)
	message = append(append(message, 1), text...)
	e := binary.AppendUvarint(bytes.Clone(of[:EnvelopeSize]), uint64(len(message)))
	return append(e, message...)
}

// ManyNames returns an envelope with a message to all but n connections, or to all but the members of n rooms,
// with names of that size.
func ManyNames(kind byte, n, size int) []byte {
	message := append(binary.AppendUvarint([]byte{1, 0, kind}, uint64(n)), bytes.Repeat(append([]byte{byte(size)}, strings.Repeat("x", size)...), n)...)
	e := binary.AppendUvarint(append([]byte{1}, make([]byte, 16)...), uint64(len(message)+4))
	return append(append(e, message...), "text"...)
}
