package wsroom

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
)

// RoomFunc names the room of a request. A name is 1 to 255 bytes of UTF-8 without control
// characters; any other gets 400. An error refuses the request: a *StatusError with its own HTTP
// status, any other error with 400 and no text. It may be called concurrently.
type RoomFunc func(r *http.Request) (string, error)

const maxRoomName = 255 // bytes

// ByPath names the room after the URL's path: each segment is decoded once, empty and dot segments
// are cleaned away, and a slash or a percent sign inside a segment stays escaped. So
// /chat/%67eneral is /chat/general, and /a%2Fb isn't /a/b. Behind http.StripPrefix it is the path
// without the prefix; behind chi's Mount and Route, the whole path. It is the default.
func ByPath(r *http.Request) (string, error) {
	name, err := cleanPath(escapedPath(r.URL))
	return "/" + name, err
}

// escapedPath is url.URL.EscapedPath for paths in which the client left something as it was that
// should have been escaped, too: browsers send | so, and EscapedPath turns the %2F of a|b%2Fc into a
// slash then.
func escapedPath(u *url.URL) string {
	if p, err := url.PathUnescape(u.RawPath); err == nil && p == u.Path {
		return u.RawPath
	}
	return u.EscapedPath()
}

// cleanPath decodes and cleans an escaped path, without the slash it begins with.
func cleanPath(escaped string) (string, error) {
	var clean []string
	for segment := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(segment)
		if err != nil {
			return "", badName()
		}
		switch s {
		case "", ".":
		case "..":
			clean = clean[:max(0, len(clean)-1)]
		default:
			clean = append(clean, segmentEscaper.Replace(s))
		}
	}
	return strings.Join(clean, "/"), nil
}

var segmentEscaper = strings.NewReplacer("/", "%2F", "%", "%25")

// ByPattern names the room after the route's pattern, without method and host, so that all of
// /chat/{room} is one room. Where no pattern is known, such as in a middleware that runs before the
// request is routed, it is an error and the client gets 500.
func ByPattern(r *http.Request) (string, error) {
	if p := pattern(r); p != "" {
		return p, nil
	}
	return "", &StatusError{
		Status: http.StatusInternalServerError,
		Message: "wsroom: ByPattern: the route's pattern isn't known here; mount the hub behind the router, not before it, " +
			"or have a router that sets no r.Pattern set it",
	}
}

// pattern returns the path of the pattern that routed the request, or "" if it isn't known yet.
func pattern(r *http.Request) string {
	route := chi.RouteContext(r.Context())
	if route != nil && !routed(r, route) {
		return ""
	}
	p := r.Pattern // of the innermost router; chi sets it too
	if i := strings.Index(p, "/"); i > 0 {
		p = p[i:]
	}
	return p
}

// routed reports whether chi has found the request's endpoint. In a middleware of a mounted router,
// or in front of one, it has only come to the mount, whose pattern would be one big room.
func routed(r *http.Request, route *chi.Context) bool {
	n := len(route.RoutePatterns)
	if n == 0 {
		return false
	}
	if !strings.HasSuffix(route.RoutePatterns[n-1], "*") || r.Pattern != route.RoutePattern() {
		return true // no mount, or a router mounted in chi went on
	}
	method := route.RouteMethod
	if method == "" {
		method = r.Method
	}
	whole := chi.NewRouteContext()
	found := route.Routes.Find(whole, method, rawPath(r)) != ""
	if len(whole.RoutePatterns) < n || !slices.Equal(whole.RoutePatterns[:n], route.RoutePatterns) {
		return true // the path isn't the one that chi routed on: http.StripPrefix stands between
	}
	return found && len(whole.RoutePatterns) == n
}

// rawPath is what chi routes on.
func rawPath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// ByPathValue names the room after the path value of that name, decoded once under either router: of
// /chat/{room}, /chat/%67eneral and /chat/general are the room general. The value of a wildcard that
// spans segments ({path...}, or * under chi) is decoded as ByPath does. Where the route has no such
// value it is an error and the client gets 500. Behind a router that sets no path values, have a handler
// in between call r.SetPathValue.
func ByPathValue(name string) RoomFunc {
	return func(r *http.Request) (string, error) {
		escaped, found := pathValue(r, name)
		if !found {
			return "", noPathValue(r, name)
		}
		if name == "*" || spansSegments(r, name) {
			return cleanPath(escaped)
		}
		value, err := url.PathUnescape(escaped)
		if err != nil {
			return "", badName()
		}
		return value, nil
	}
}

// noPathValue says what is to be done about a path value that is missing.
func noPathValue(r *http.Request, name string) error {
	remedy := "mount the hub behind the router, on a pattern that has it"
	if r.Pattern == "" && chi.RouteContext(r.Context()) == nil {
		remedy = fmt.Sprintf("call r.SetPathValue(%q, …) before the hub where the router sets no path values, "+
			"or mount the hub behind the router, not before it", name)
	}
	return &StatusError{
		Status:  http.StatusInternalServerError,
		Message: fmt.Sprintf("wsroom: ByPathValue: the request has no path value %q: %s", name, remedy),
	}
}

// pathValue returns a path value, escaped. ServeMux decodes them; chi has them as they stand in the
// URL's RawPath, if that is set, else decoded, too.
func pathValue(r *http.Request, name string) (escaped string, found bool) {
	value := r.PathValue(name)
	route := chi.RouteContext(r.Context())
	if route != nil && slices.Contains(route.URLParams.Keys, name) {
		raw := route.URLParam(name) // "" for the * of a mount, of which PathValue has the value
		if raw == value || raw == "" || value == "" {
			return escapeUnless(r.URL.RawPath != "", cmp.Or(raw, value)), true
		}
	}
	if spansSegments(r, name) {
		return escapedEnd(r, value), true
	}
	return url.PathEscape(value), value != ""
}

// spansSegments reports whether the value is that of ServeMux's {name...}.
func spansSegments(r *http.Request, name string) bool {
	return strings.Contains(r.Pattern, "{"+name+"...}")
}

func escapeUnless(escaped bool, path string) string {
	if escaped {
		return path
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// escapedEnd returns the end of the escaped path that decodes to value, so that a slash within a
// segment can be told from one between two.
func escapedEnd(r *http.Request, value string) string {
	escaped := escapedPath(r.URL)
	for i := len(escaped); i > 0; {
		i = strings.LastIndexByte(escaped[:i], '/')
		if i < 0 {
			break
		}
		if end, err := url.PathUnescape(escaped[i+1:]); err == nil && end == value {
			return escaped[i+1:]
		}
	}
	return escapeUnless(false, value)
}

func badName() error {
	return &StatusError{Status: http.StatusBadRequest, Message: "bad room name"}
}

// checkRoomName returns an error unless name may name a room.
func checkRoomName(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return badName()
	}
	return nil
}

// roomError turns a RoomFunc's error into the refusal that the client gets.
func roomError(err error) error {
	if refused := (*StatusError)(nil); errors.As(err, &refused) {
		return err
	}
	return &StatusError{Status: http.StatusBadRequest}
}
