package request

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// BearerPrefix marks an entry of Sec-WebSocket-Protocol that is a token.
const BearerPrefix = "bearer."

// BearerToken returns the request's bearer token. The token is in the header "Authorization: Bearer …" (RFC
// 6750, section 2.1), or in an entry of Sec-WebSocket-Protocol that is [BearerPrefix] and the token in
// base64url without padding. ok is false unless there is exactly one token, of visible ASCII characters.
func BearerToken(header http.Header) (token string, ok bool) {
	found := 0
	for _, line := range header.Values("Authorization") {
		if scheme, rest, _ := strings.Cut(line, " "); strings.EqualFold(scheme, "bearer") {
			found++
			token = strings.Trim(rest, " ")
		}
	}

	for _, line := range header.Values("Sec-WebSocket-Protocol") {
		for entry := range strings.SplitSeq(line, ",") {
			if entry = strings.TrimSpace(entry); IsBearer(entry) {
				found++
				p, err := base64.RawURLEncoding.Strict().DecodeString(entry[len(BearerPrefix):])
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

// IsBearer reports whether a subprotocol is a token. Case doesn't matter, just as it doesn't when a
// subprotocol is chosen.
func IsBearer(subprotocol string) bool {
	return len(subprotocol) >= len(BearerPrefix) && strings.EqualFold(subprotocol[:len(BearerPrefix)], BearerPrefix)
}

func notVisible(c rune) bool { return c <= ' ' || c >= 0x7f }
