// Package resume is the subprotocol wsroom.v1: what a hub and a client that comes back say to each other
// beside the application's messages. docs/resume.md specifies it.
//
// [Offered] reads what a client asks for, a [Key] signs positions, and a [Session] writes what one client
// gets: the application's messages as every client gets them, and control messages that say which room each
// belongs to and where it stands. The package knows rooms by their names and ids. It doesn't keep messages
// (see package history), doesn't know who is in a room, and writes to no socket.
package resume

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"

	"github.com/wsroom/wsroom/internal/history"
)

const (
	// Protocol is the subprotocol's name. Before it, and a plus sign, may stand an application's own.
	Protocol = "wsroom.v1"

	// maxOffers bounds the positions that a client may present.
	maxOffers = 64

	prefix = "resume." // of the entries of Sec-WebSocket-Protocol that are positions
)

// Offer is a position that a client presents: n messages after the one at At, in the token's room.
type Offer struct {
	token []byte
	at    history.Position
	n     uint64
}

// Offered reads the list of subprotocols (RFC 6455, section 4.1) that a client offers. If the client speaks
// this protocol, chosen is the entry that says so, and own is the application's subprotocol in it, one of
// these names or "". Case doesn't matter. The offers are in the client's order; one that isn't understood is
// empty.
func Offered(header http.Header, names []string) (chosen, own string, offers []Offer) {
	for _, line := range header.Values("Sec-Websocket-Protocol") { // Go's canonical form, which isn't converted
		for entry := range strings.SplitSeq(line, ",") {
			entry = strings.TrimSpace(entry)
			if strings.HasPrefix(entry, prefix) {
				if len(offers) < maxOffers {
					offers = append(offers, parseOffer(entry[len(prefix):]))
				}
			} else if chosen == "" {
				chosen, own = match(entry, names)
			}
		}
	}
	return chosen, own, offers
}

// IsReserved reports whether a subprotocol is an entry of this protocol.
func IsReserved(subprotocol string) bool {
	s := strings.ToLower(subprotocol)
	return s == Protocol || strings.HasSuffix(s, "+"+Protocol) || strings.HasPrefix(s, prefix)
}

// match returns the entry and the application's subprotocol in it, if the entry asks for this protocol.
func match(entry string, names []string) (chosen, own string) {
	name, isV1 := strings.CutSuffix(strings.ToLower(entry), Protocol)
	if !isV1 {
		return "", ""
	}
	if name == "" { // the answer is spelled as the client has spelled it
		return entry, ""
	}
	for _, own := range names {
		if strings.EqualFold(name, own+"+") {
			return entry, own
		}
	}
	return "", ""
}

func parseOffer(entry string) (o Offer) {
	token, rest, _ := strings.Cut(entry, ".")
	at, n, _ := strings.Cut(rest, ".")
	count, err := strconv.ParseUint(n, 10, 64)
	position, ok := parsePosition(at)
	p, decodeErr := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || !ok || decodeErr != nil || len(p) != tokenSize {
		return Offer{}
	}
	return Offer{token: p, at: position, n: count}
}

// parsePosition reads what appendPosition has written.
func parsePosition(s string) (p history.Position, ok bool) {
	stream, letter, found := strings.Cut(s, "-")
	p.Stream, ok = parseNumber(stream, 64)
	if found && ok {
		var n uint64
		n, ok = parseNumber(letter, 32)
		p.Letter = uint32(n)
	}
	return p, ok
}

func parseNumber(s string, bits int) (n uint64, ok bool) {
	n, err := strconv.ParseUint(s, 10, bits)
	return n, err == nil && s[0] != '+'
}

func appendPosition(b []byte, p history.Position) []byte {
	b = strconv.AppendUint(b, p.Stream, 10)
	if p.Letter > 0 {
		b = strconv.AppendUint(append(b, '-'), uint64(p.Letter), 10)
	}
	return b
}

// A token says, of one client and one room, where the client may begin: no earlier than it first came. Its
// parts are
//
//	version  1 byte
//	room     8 bytes of an HMAC of the hub's and the room's name
//	log      8 bytes: which of the room's logs its positions are of; 0 with a broker
//	floor    8 and 2 bytes: the position at which the client first entered
//	conn     8 bytes: the connection that it was given to
//	MAC     16 bytes of an HMAC of all of the above
//
// The HMAC is that of RFC 2104 with SHA-256, under one of the hub's keys.
const (
	tokenVersion = 1
	tokenBody    = 1 + 8 + 8 + 10 + 8
	tokenSize    = tokenBody + 16
)

// Key signs the positions of one hub. Its methods may be called concurrently.
type Key struct {
	hub  string
	keys [][]byte
}

// NewKey returns the [Key] of the hub of that name. The first of the keys signs, all of them verify.
func NewKey(hub string, keys [][]byte) *Key { return &Key{hub: hub, keys: keys} }

// ConnTag returns the number by which tokens name a connection. The id may be one of HolderID.
func ConnTag(id string) uint64 {
	if hex, ok := strings.CutPrefix(id, holderPrefix); ok {
		if tag, err := strconv.ParseUint(hex, 16, 64); err == nil {
			return tag
		}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}

// HolderID returns an id that stands for the connection with this number. No connection has it.
func HolderID(tag uint64) string { return holderPrefix + strconv.FormatUint(tag, 16) }

const holderPrefix = "#"

// roomTag returns the number by which tokens name a room.
func (k *Key) roomTag(key []byte, room string) uint64 {
	return binary.BigEndian.Uint64(k.sum(key, "room", room, nil))
}

func (k *Key) sum(key []byte, kind, room string, data []byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{kind, k.hub, room} {
		_, _ = mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		_, _ = mac.Write([]byte(part))
	}
	_, _ = mac.Write(data)
	return mac.Sum(nil)
}

// Claim is what a token says.
type Claim struct {
	Log    uint64
	Floor  history.Position
	Holder uint64 // the connection that it was given to, by ConnTag
}

// sign returns the token that says this of the room.
func (k *Key) sign(room string, c Claim) string {
	b := make([]byte, 0, tokenSize)
	b = append(b, tokenVersion)
	b = binary.BigEndian.AppendUint64(b, k.roomTag(k.keys[0], room))
	b = binary.BigEndian.AppendUint64(b, c.Log)
	b = binary.BigEndian.AppendUint64(b, c.Floor.Stream)
	b = binary.BigEndian.AppendUint16(b, uint16(min(c.Floor.Letter, 1<<16-1)))
	b = binary.BigEndian.AppendUint64(b, c.Holder)
	b = append(b, k.sum(k.keys[0], "token", room, b)[:16]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// find returns the first of the offers whose token names the room, and what the token says. ok is false if it
// isn't signed with one of the keys. i is -1 if there is none.
func (k *Key) find(offers []Offer, room string) (i int, c Claim, ok bool) {
	if len(offers) == 0 {
		return -1, c, false
	}
	for _, key := range k.keys {
		tag := k.roomTag(key, room)
		for i, o := range offers {
			if len(o.token) == tokenSize && o.token[0] == tokenVersion && binary.BigEndian.Uint64(o.token[1:]) == tag {
				c, ok = k.verify(key, o, room)
				return i, c, ok
			}
		}
	}
	return -1, c, false
}

// verify returns what the offer's token says, if it is signed with that key.
func (k *Key) verify(key []byte, o Offer, room string) (c Claim, ok bool) {
	body, mac := o.token[:tokenBody], o.token[tokenBody:]
	if !hmac.Equal(mac, k.sum(key, "token", room, body)[:16]) {
		return c, false
	}
	c.Log = binary.BigEndian.Uint64(body[9:])
	c.Floor.Stream = binary.BigEndian.Uint64(body[17:])
	c.Floor.Letter = uint32(binary.BigEndian.Uint16(body[25:]))
	c.Holder = binary.BigEndian.Uint64(body[27:])
	return c, true
}
