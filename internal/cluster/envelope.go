package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/wsroom/wsroom/internal/frame"
)

// An envelope is what a node publishes on a topic in one call:
//
//	version    1 byte, with the bit published if an earlier call for the envelope has failed
//	node       16 bytes: the id of the publishing node
//	messages   each as follows, after its length (uvarint)
//	  sequence uvarint: rises with each message of the node
//	  back     uvarint: by how much it has risen since the node's last message on this topic; 0: unknown
//	  kind     1 byte: frame.Text, frame.Binary, frame.Close, Mark, Join, Leave or kindLost, and the bits below
//	  besides  if the bit is set: number (uvarint) and names of rooms, each after its length
//	  except   if the bit is set: the same for connections' ids
//	  to       if the bit is set: the same for identities or, on a node's topic, for connections' ids
//	  unless   with the same bit: the same for identities that don't get it
//	  trace    if the bit is set: the trace that the message belongs to, after its length; it may be empty
//	  key      with the same bit: the key of a newest value, after its length; it may be empty
//	  payload  the rest
//
// An envelope has at most maxNames names. That is 22 bytes around a message, and 5 around each further one in
// the same envelope. A node drops what has an unknown version, kind or bit, and reports a gap.
const (
	envelopeVersion = 1
	published       = 0x80 // the envelope may have been published before; only on topics that are kept
	envelopeHead    = 1 + len(nodeID{})
	maxUvarint      = binary.MaxVarintLen64

	// maxNames bounds the names of rooms and ids that an envelope holds. maxRooms bounds the rooms of a
	// message, because the envelope for each room has the names of the rooms before it.
	maxNames = 1 << 16
	maxRooms = 4096

	kindLost    = 0    // messages up to this one were given up; no payload
	withBesides = 0x10 // skips members of these rooms, which got it there
	withExcept  = 0x20 // skips the connections with these ids
	withLabels  = 0x40 // belongs to this trace, and takes the place of a message of this key that still waits
	withReach   = 0x80 // is for these identities or connections, and skips those of other identities
)

// nodeID identifies a node among those that share a broker.
type nodeID [16]byte

func newNodeID() (id nodeID) {
	rand.Read(id[:]) // never fails
	return id
}

// message is what precedes a message's payload on its way between nodes.
type message struct {
	sequence, back  uint64
	kind            byte
	besides, except []string
	trace, key      string // "": none
	to, unless      []string
}

// isCommand reports whether a message of this kind says what is to be done with those who are there then. It
// isn't for anybody that comes later.
func isCommand(kind byte) bool { return kind == frame.Close || kind == Join || kind == Leave }

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
	if m.trace != "" || m.key != "" {
		head[kind] |= withLabels
		for _, label := range []string{m.trace, m.key} {
			head = append(binary.AppendUvarint(head, uint64(len(label))), label...)
		}
	}
	if len(m.to)+len(m.unless) > 0 {
		head[kind] |= withReach
		head = appendNames(appendNames(head, m.to), m.unless)
	}
	b = binary.AppendUvarint(b, uint64(len(head)+len(payload)))
	return append(append(b, head...), payload...)
}

// The payloads of these kinds are names of rooms, by [AppendNames], that the audience enters or leaves.
const (
	Join  = 0x5
	Leave = 0x6
)

// AppendNames appends the names of rooms, for a message of kind [Join] or [Leave].
func AppendNames(b []byte, names []string) []byte { return appendNames(b, names) }

// Names returns what [AppendNames] appended. It returns none if the payload has something else.
func Names(payload []byte) []string {
	r, left := reader(payload), budget(maxNames)
	if names := r.names(&left); r != nil && len(r) == 0 {
		return names
	}
	return nil
}

func appendNames(b []byte, names []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
	}
	return b
}

// openEnvelope returns the node that published the envelope and a reader of its messages.
func openEnvelope(b []byte) (nodeID, reader, error) {
	switch {
	case len(b) > 0 && b[0]&^published != envelopeVersion:
		return nodeID{}, nil, fmt.Errorf("%w: %d", errVersion, b[0])
	case len(b) < envelopeHead:
		return nodeID{}, nil, errMalformed
	}
	return nodeID(b[1:envelopeHead]), b[envelopeHead:], nil
}

// reader is what is still to be read. It becomes nil when it can't read something.
type reader []byte

// budget is the number of names that may still be read from an envelope.
type budget int

// message reads the next message. The payload is a part of the data that is read.
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
	if m.kind&withLabels != 0 {
		m.trace, m.key = string(body.bytes()), string(body.bytes())
	}
	if m.kind&withReach != 0 {
		m.to, m.unless = body.names(names), body.names(names)
	}
	if body == nil || m.back > m.sequence {
		return m, nil, errMalformed
	}
	m.kind &^= withBesides | withExcept | withLabels | withReach
	switch m.kind {
	case frame.Text:
		if !utf8.Valid(body) {
			err = errMalformed
		}
	case frame.Close:
		if e := frame.CloseErrorOf(body); frame.CheckClose(e.Code, e.Reason) != nil {
			err = errMalformed
		}
	case Join, Leave:
		if rooms := Names(body); len(rooms) == 0 {
			err = errMalformed
		}
	case frame.Binary, Mark, kindLost:
	default:
		err = errVersion
	}
	return m, body, err
}

// lastSequenceOf returns the sequence of an envelope's last message.
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

// bytes reads its length and then that many bytes.
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

// names reads a list of names. None of them may be empty.
func (r *reader) names(left *budget) []string {
	n := r.uvarint()
	if n > uint64(*left) || n > uint64(len(*r)/2) {
		*r = nil
		return nil
	}
	*left -= budget(n)
	names := make([]string, n)
	for i := range names {
		if names[i] = r.name(); *r == nil {
			return nil
		}
	}
	return names
}

// name reads a name, which may not be empty.
func (r *reader) name() string {
	name := r.bytes()
	if len(name) == 0 {
		*r = nil
	}
	return string(name)
}
