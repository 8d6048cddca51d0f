package cluster

import (
	"crypto/rand"
	"encoding/base32"
	"maps"
	"slices"
	"strings"
)

const (
	// nodeName is the length of the name that a node has in its connections' ids: 40 bits. Should two nodes
	// have the same, both get what is for the connections of either, and one of them has the connection.
	nodeName = 8
	// connSecret is how much of a connection's id is random: 130 bits.
	connSecret = 26

	base32Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// String returns the node's name in ids and topics.
func (id nodeID) String() string { return base32.StdEncoding.EncodeToString(id[:nodeName*5/8]) }

// NewConnID returns an id for a connection of the node. It is unique, can't be guessed, and leads other nodes
// to this one. It has letters and digits only.
func (n *Node) NewConnID() string {
	var id [nodeName + connSecret]byte
	secret := id[nodeName:]
	_, _ = rand.Read(secret) // never fails
	for i := range secret {
		secret[i] = base32Letters[secret[i]%32]
	}
	copy(id[:], n.own[len(ownTopic):])
	return string(id[:])
}

// nodeOf returns the key of the topic of a connection's node. It returns "" for what can't be a connection's
// id.
func nodeOf(conn string) string {
	isOther := func(c rune) bool { return !strings.ContainsRune(base32Letters, c) }
	if len(conn) != nodeName+connSecret || strings.ContainsFunc(conn, isOther) {
		return ""
	}
	return ownTopic + conn[:nodeName]
}

// everyRoom is the topic of what isn't for rooms or connections.
var everyRoom = []string{EveryRoom}

// topics returns the keys of the topics on which a message reaches the audience. There is none for nobody. If
// it is for connections, conns has them by topic.
func (a *Audience) topics() (topics []string, conns map[string][]string) {
	switch {
	case len(a.Rooms) > 0:
		return a.Rooms, nil
	case a.All || len(a.Identities) > 0:
		return everyRoom, nil
	}
	conns = map[string][]string{}
	for _, conn := range a.Conns {
		if node := nodeOf(conn); node != "" {
			conns[node] = append(conns[node], conn)
		}
	}
	return slices.Sorted(maps.Keys(conns)), conns
}
