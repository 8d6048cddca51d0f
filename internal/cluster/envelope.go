package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/wsroom/wsroom/internal/frame"
)

// An envelope is what a node publishes on a topic at a time:
//
//	version    1 byte
//	node       16 bytes: of the one that publishes
//	messages   each as follows, led by its length (uvarint)
//	  sequence uvarint: rises with each message of the node
//	  back     uvarint: how much by since its last message on this topic; 0 where that isn't known
//	  kind     1 byte: frame.Text, frame.Binary, frame.Close or kindLost, and the bits below
//	  besides  if the bit is set: number (uvarint) and, led by their lengths, names of rooms
//	  except   if the bit is set: the same of connections' ids; at most maxNames of both in an envelope
//	  payload  the rest
//
// That is 22 bytes around a message, and 5 around each further one in the same envelope. A node that
// doesn't know a version, a kind or a bit leaves out what has it, and reports a gap.
const (
	envelopeVersion = 1
	envelopeHead    = 1 + len(nodeID{})
	maxUvarint      = binary.MaxVarintLen64

	// maxNames bounds the names of rooms and ids that an envelope holds, and maxRooms the rooms of a message:
	// the envelope for each has the names of those before it.
	maxNames = 1 << 16
	maxRooms = 4096

	kindLost    = 0    // messages up to this one were given up; no payload
	withBesides = 0x10 // skips members of these rooms, which got it there
	withExcept  = 0x20 // skips the connections with these ids
)

// nodeID tells the nodes apart that share a broker.
type nodeID [16]byte

func newNodeID() (id nodeID) {
	rand.Read(id[:]) // never fails
	return id
}

// message is what leads a message's payload on its way between nodes.
type message struct {
	sequence, back  uint64
	kind            byte
	besides, except []string
}

var (
	errVersion   = errors.New("wsroom: broker: message of a version that isn't known")
	errMalformed = errors.New("wsroom: broker: malformed message")
)

func appendEnvelope(b []byte, node nodeID) []byte {
	return append(append(b, envelopeVersion), node[:]...)
}

func appendMessage[P string | []byte](b []byte, m message, payload P) []byte {
	var scratch [64]byte
	head := binary.AppendUvarint(scratch[:0], m.sequence)
	head = binary.AppendUvarint(head, m.back)
	kind := len(head)
	head = append(head, m.kind)
	if len(m.besides) > 0 {
		head[kind] |= withBesides
		head = appendNames(head, m.besides)
	}
	if len(m.except) > 0 {
		head[kind] |= withExcept
		head = appendNames(head, m.except)
	}
	b = binary.AppendUvarint(b, uint64(len(head)+len(payload)))
	return append(append(b, head...), payload...)
}

func appendNames(b []byte, names []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
	}
	return b
}

// openEnvelope returns the node that published it and what to read its messages from.
func openEnvelope(b []byte) (nodeID, reader, error) {
	switch {
	case len(b) > 0 && b[0] != envelopeVersion:
		return nodeID{}, nil, fmt.Errorf("%w: %d", errVersion, b[0])
	case len(b) < envelopeHead:
		return nodeID{}, nil, errMalformed
	}
	return nodeID(b[1:envelopeHead]), b[envelopeHead:], nil
}

// reader is what is still to be read. What it can't read makes it nil.
type reader []byte

// budget is how many names may still be read from an envelope.
type budget int

// message reads the next message. The payload is a part of what is read.
func (r *reader) message(names *budget) (m message, payload []byte, err error) {
	body := reader(r.bytes())
	if *r == nil {
		return m, nil, errMalformed
	}
	m.sequence, m.back, m.kind = body.uvarint(), body.uvarint(), body.byte()
	if m.kind&withBesides != 0 {
		m.besides = body.names(names)
	}
	if m.kind&withExcept != 0 {
		m.except = body.names(names)
	}
	if body == nil || m.back > m.sequence {
		return m, nil, errMalformed
	}
	m.kind &^= withBesides | withExcept
	switch m.kind {
	case frame.Text:
		if !utf8.Valid(body) {
			err = errMalformed
		}
	case frame.Close:
		if e := frame.CloseErrorOf(body); frame.CheckClose(e.Code, e.Reason) != nil {
			err = errMalformed
		}
	case frame.Binary, kindLost:
	default:
		err = errVersion
	}
	return m, body, err
}

// lastSequenceOf returns that of an envelope's last message.
func lastSequenceOf(envelope []byte) (last uint64) {
	_, messages, _ := openEnvelope(envelope)
	for len(messages) > 0 {
		body := reader(messages.bytes())
		last = body.uvarint()
	}
	return last
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(*r)
	if size <= 0 {
		*r = nil
		return 0
	}
	*r = (*r)[size:]
	return n
}

func (r *reader) byte() byte {
	if len(*r) == 0 {
		*r = nil
		return 0
	}
	b := (*r)[0]
	*r = (*r)[1:]
	return b
}

// bytes reads what is led by its length.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(*r)) {
		*r = nil
		return nil
	}
	b := (*r)[:n:n]
	*r = (*r)[n:]
	return b
}

// names reads a list of names, none of which is empty.
func (r *reader) names(left *budget) []string {
	n := r.uvarint()
	if n > uint64(*left) || n > uint64(len(*r)/2) {
		*r = nil
		return nil
	}
	*left -= budget(n)
	names := make([]string, n)
	for i := range names {
		name := r.bytes()
		if len(name) == 0 {
			*r = nil
			return nil
		}
		names[i] = string(name)
	}
	return names
}
