package wsroom

import (
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
	name, err := cleanPath(r.URL.EscapedPath())
	return "/" + name, err
}

// cleanPath decodes and cleans an escaped path, without the slash it begins with.
func cleanPath(escaped string) (string, error) {
	var clean []string
	for segment := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(segment)
		if err != nil {
			return "", errBadName
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
		Status:  http.StatusInternalServerError,
		Message: "wsroom: ByPattern: the route's pattern isn't known here; mount the hub behind the router, not before it",
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

// routed reports whether chi has found the request's endpoint. In a middleware of a mounted router
// it has only come to the mount, whose pattern would be one big room.
func routed(r *http.Request, route *chi.Context) bool {
	n := len(route.RoutePatterns)
	if n == 0 {
		return false
	}
	last, values := route.RoutePatterns[n-1], route.URLParams.Values
	if !strings.HasSuffix(last, "*") || len(values) == 0 || values[len(values)-1] != "" {
		return true // not a mount: those empty the wildcard's value
	}
	if r.Pattern != route.RoutePattern() {
		return true // a router mounted in chi went on
	}
	method := route.RouteMethod
	if method == "" {
		method = r.Method
	}
	whole := route.Routes.Find(chi.NewRouteContext(), method, rawPath(r))
	return strings.TrimRight(whole, "/") == strings.TrimRight(route.RoutePattern(), "/")
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
// value it is an error and the client gets 500.
func ByPathValue(name string) RoomFunc {
	return func(r *http.Request) (string, error) {
		value, found, err := pathValue(r, name)
		if err != nil {
			return "", err
		}
		if !found {
			return "", &StatusError{
				Status:  http.StatusInternalServerError,
				Message: fmt.Sprintf("wsroom: ByPathValue: the request has no path value %q here; mount the hub behind the router, on a pattern that has it", name),
			}
		}
		if name == "*" || strings.Contains(r.Pattern, "{"+name+"...}") {
			return cleanPath(escapedEnd(r, value))
		}
		return value, nil
	}
}

// pathValue returns a path value decoded once. ServeMux decodes them itself; chi has them as they
// stand in the URL's RawPath, if that is set.
func pathValue(r *http.Request, name string) (value string, found bool, err error) {
	value = r.PathValue(name)
	route := chi.RouteContext(r.Context())
	if route != nil && slices.Contains(route.URLParams.Keys, name) {
		raw := route.URLParam(name)
		if raw == value || value == "" {
			return unescapeIf(r.URL.RawPath != "", raw)
		}
	}
	return value, value != "" || strings.Contains(r.Pattern, "{"+name), nil
}

func unescapeIf(escaped bool, raw string) (string, bool, error) {
	if !escaped {
		return raw, true, nil
	}
	value, err := url.PathUnescape(raw)
	if err != nil {
		return "", true, errBadName
	}
	return value, true, nil
}

// escapedEnd returns the end of the escaped path that decodes to value, so that a slash within a
// segment can be told from one between two.
func escapedEnd(r *http.Request, value string) string {
	escaped := r.URL.EscapedPath()
	for i := len(escaped); i > 0; {
		i = strings.LastIndexByte(escaped[:i], '/')
		if i < 0 {
			break
		}
		if end, err := url.PathUnescape(escaped[i+1:]); err == nil && end == value {
			return escaped[i+1:]
		}
	}
	return (&url.URL{Path: value}).EscapedPath()
}

var errBadName = &StatusError{Status: http.StatusBadRequest, Message: "bad room name"}

// checkRoomName returns an error unless name may name a room.
func checkRoomName(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return errBadName
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
