package wsroom

import (
	"net/http"
	"strconv"
	"strings"
)

// acceptDeflate returns the answer to the first offer of permessage-deflate that may be accepted, without
// context takeover; "" if there is none.
func acceptDeflate(request http.Header) string {
	list := strings.Join(request.Values("Sec-WebSocket-Extensions"), ",")
	if strings.Contains(list, `"`) { // might hide a comma; nobody quotes values
		return ""
	}
	for offer := range strings.SplitSeq(list, ",") {
		if params, ok := deflateParams(offer); ok {
			answer := "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
			if params["server_max_window_bits"] { // of 15, and to be confirmed
				answer += "; server_max_window_bits=15"
			}
			return answer
		}
	}
	return ""
}

// deflateParams returns the parameters of an offer, if it is one of permessage-deflate that may be
// accepted: none may be unknown, have a wrong value or occur twice (RFC 7692, section 7.1). What is
// inflated may come of any window, but a smaller one for what is deflated isn't to be had.
func deflateParams(offer string) (params map[string]bool, ok bool) {
	parts := strings.Split(offer, ";")
	if strings.TrimSpace(parts[0]) != "permessage-deflate" {
		return nil, false
	}
	params = map[string]bool{}
	for _, param := range parts[1:] {
		name, value, valued := strings.Cut(strings.TrimSpace(param), "=")
		bits, _ := strconv.Atoi(value)
		switch {
		case params[name]:
			return nil, false
		case !valued && (name == "client_no_context_takeover" || name == "server_no_context_takeover" || name == "client_max_window_bits"):
		case name == "client_max_window_bits" && bits >= 8 && bits <= 15 && value == strconv.Itoa(bits):
		case name == "server_max_window_bits" && value == "15":
		default:
			return nil, false
		}
		params[name] = true
	}
	return params, true
}
