package kit

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Forged is an envelope of the node that sent another one, with a message of that sequence.
func Forged(of []byte, sequence, back uint64, text string) []byte {
	letter := binary.AppendUvarint(nil, sequence)
	letter = binary.AppendUvarint(letter, back)
	letter = append(append(letter, 1), text...)
	e := binary.AppendUvarint(bytes.Clone(of[:EnvelopeSize]), uint64(len(letter)))
	return append(e, letter...)
}

// ManyNames is a message to all but n connections, or but the members of n rooms, of names of that size.
func ManyNames(kind byte, n, size int) []byte {
	letter := append(binary.AppendUvarint([]byte{1, 0, kind}, uint64(n)), bytes.Repeat(append([]byte{byte(size)}, strings.Repeat("x", size)...), n)...)
	e := binary.AppendUvarint(append([]byte{1}, make([]byte, 16)...), uint64(len(letter)+4))
	return append(append(e, letter...), "text"...)
}
