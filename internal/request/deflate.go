package request

import (
	"net/http"
	"strconv"
	"strings"
)

// AcceptDeflate returns the answer to the first acceptable offer of permessage-deflate, without context
// takeover (RFC 7692, sections 5.1 and 7.1.1). It returns "" if there is none.
func AcceptDeflate(header http.Header) string {
	list := strings.Join(header.Values("Sec-WebSocket-Extensions"), ",")
	if strings.Contains(list, `"`) { // it might hide a comma; no client quotes values
		return ""
	}

	for offer := range strings.SplitSeq(list, ",") {
		if params, ok := deflateParams(offer); ok {
			answer := "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
			if params["server_max_window_bits"] { // 15, to be confirmed (RFC 7692, section 7.1.2.1)
				answer += "; server_max_window_bits=15"
			}
			return answer
		}
	}
	return ""
}

// deflateParams returns the parameters of an offer of permessage-deflate, if it is acceptable. No parameter
// may be unknown, have a wrong value or occur twice (RFC 7692, section 7.1). The client may use any window.
// A smaller server window is refused: compress/flate always uses 32 KiB.
func deflateParams(offer string) (params map[string]bool, ok bool) {
	parts := strings.Split(offer, ";")
	if strings.TrimSpace(parts[0]) != "permessage-deflate" {
		return nil, false
	}

	params = map[string]bool{}
	for _, param := range parts[1:] {
		name, value, hasValue := strings.Cut(strings.TrimSpace(param), "=")
		if params[name] || !acceptable(name, value, hasValue) {
			return nil, false
		}
		params[name] = true
	}
	return params, true
}

// acceptable reports whether a parameter is known, has an allowed value, and asks only for what is
// supported.
func acceptable(name, value string, hasValue bool) bool {
	switch name {
	case "server_no_context_takeover", "client_no_context_takeover": // RFC 7692, section 7.1.1
		return !hasValue
	case "server_max_window_bits": // RFC 7692, section 7.1.2.1
		return value == "15"
	case "client_max_window_bits": // RFC 7692, section 7.1.2.2
		bits, _ := strconv.Atoi(value)
		return !hasValue || bits >= 8 && bits <= 15 && value == strconv.Itoa(bits)
	}
	return false
}
