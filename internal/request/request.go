// Package request reads what a request to open a WebSocket says: whether it asks for one, its origin and
// host, its client's address, its token, its subprotocol, its offer to compress and its context. It checks
// single requests against rules that it is given. It knows no connections and no rooms, and it doesn't
// write the answer.
package request

import (
	"fmt"
	"net/http"
	"strings"
)

// IsUpgrade reports whether r asks for a WebSocket, by RFC 6455, section 4.1, or over HTTP/2 by RFC 8441,
// section 4.
func IsUpgrade(r *http.Request) bool {
	if r.ProtoMajor >= 2 {
		return r.Method == http.MethodConnect && r.Header.Get(":protocol") == "websocket"
	}
	return listHas(r.Header, "Connection", "upgrade") && listHas(r.Header, "Upgrade", "websocket")
}

// Hint returns what a request over HTTP/1.1 that doesn't ask for a WebSocket is told, "" if it asks for one.
func Hint(r *http.Request) string {
	switch path := r.URL.EscapedPath(); {
	case IsUpgrade(r) || !r.ProtoAtLeast(1, 1):
		return ""
	case r.Header.Get("Sec-WebSocket-Key") != "":
		return "this WebSocket handshake has no \"Connection: Upgrade\" and \"Upgrade: websocket\": " +
			"a proxy before the server must pass these headers on"
	default:
		if target, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasPrefix(target, "/") {
			path = target // before a router took a prefix away
		}
		scheme := "ws"
		if r.TLS != nil {
			scheme = "wss"
		}
		return fmt.Sprintf("this is a WebSocket endpoint: connect with new WebSocket(%q) in a page, or with any other WebSocket client",
			scheme+"://"+r.Host+path)
	}
}

// AnnouncesBody reports whether the request has a body. The body would be taken for frames.
func AnnouncesBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

// Subprotocol returns the first name of ours that the client offers, spelled as in ours, or "" if there is
// none. Case doesn't matter.
func Subprotocol(header http.Header, ours []string) string {
	for _, name := range ours {
		if listHas(header, "Sec-Websocket-Protocol", name) { // Go's canonical form, which isn't converted
			return name
		}
	}
	return ""
}

// IsToken reports whether s is a token (RFC 9110, section 5.6.2).
func IsToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	})
}

// listHas reports whether a list header field (RFC 9110, section 5.6.1) has the entry. Case doesn't matter.
func listHas(header http.Header, field, entry string) bool {
	for _, line := range header.Values(field) {
		for e := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(e), entry) {
				return true
			}
		}
	}
	return false
}
