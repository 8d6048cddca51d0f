package wsroom

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// bearerPrefix marks an entry of Sec-WebSocket-Protocol that is a token.
const bearerPrefix = "bearer."

// BearerToken returns the request's bearer token, for WithAuthorize: from the header "Authorization:
// Bearer …" (RFC 6750, section 2.1) or, as browsers can't set headers on a WebSocket, from the list of
// subprotocols, where it is an entry of "bearer." and the token in base64url without padding:
//
//	new WebSocket(url, ["chat", "bearer." + btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")])
//
// A browser gives up if none of its subprotocols is chosen: offer a second one, here chat, and name
// it in WithSubprotocols. A token is never chosen, sent back or logged. ok is false unless there is
// exactly one token, of visible ASCII characters. Whether it is valid is the caller's to find out.
func BearerToken(r *http.Request) (token string, ok bool) {
	found := 0
	for _, line := range r.Header.Values("Authorization") {
		if scheme, rest, _ := strings.Cut(line, " "); strings.EqualFold(scheme, "bearer") {
			found++
			token = strings.Trim(rest, " ")
		}
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for entry := range strings.SplitSeq(line, ",") {
			if entry = strings.TrimSpace(entry); isBearer(entry) {
				found++
				p, err := base64.RawURLEncoding.Strict().DecodeString(entry[len(bearerPrefix):])
				if token = string(p); err != nil {
					token = ""
				}
			}
		}
	}
	if found != 1 || token == "" || strings.ContainsFunc(token, notVisible) {
		return "", false
	}
	return token, true
}

// isBearer reports whether a subprotocol is a token. Case doesn't matter, as it doesn't when a
// subprotocol is chosen.
func isBearer(subprotocol string) bool {
	return len(subprotocol) >= len(bearerPrefix) && strings.EqualFold(subprotocol[:len(bearerPrefix)], bearerPrefix)
}

func notVisible(c rune) bool { return c <= ' ' || c >= 0x7f }
