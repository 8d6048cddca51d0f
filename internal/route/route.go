// Package route says which route a request took: its pattern, its path and its path values. It knows how
// net/http's ServeMux and chi route and escape. It knows no rooms, and doesn't know which names are
// allowed.
package route

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
)

// Known reports whether a router that this package knows has handled the request.
func Known(r *http.Request) bool {
	return r.Pattern != "" || chi.RouteContext(r.Context()) != nil
}

// Pattern returns the path of the pattern that routed the request, without method and host. It returns ""
// if the pattern isn't known yet.
func Pattern(r *http.Request) string {
	route := chi.RouteContext(r.Context())
	if route != nil && !endpointFound(r, route) {
		return ""
	}

	p := r.Pattern // set by the innermost router; chi sets it too
	if i := strings.Index(p, "/"); i > 0 {
		p = p[i:]
	}
	return p
}

// endpointFound reports whether chi has found the request's endpoint. In a middleware of a mounted router,
// or before that router, chi has only reached the mount, whose pattern is the same for all routes below it.
func endpointFound(r *http.Request, route *chi.Context) bool {
	n := len(route.RoutePatterns)
	if n == 0 {
		return false
	}
	if !strings.HasSuffix(route.RoutePatterns[n-1], "*") || r.Pattern != route.RoutePattern() {
		return true // there is no mount, or a router mounted in chi continued
	}

	method := route.RouteMethod
	if method == "" {
		method = r.Method
	}

	whole := chi.NewRouteContext()
	found := route.Routes.Find(whole, method, rawPath(r.URL)) != ""
	if len(whole.RoutePatterns) < n || !slices.Equal(whole.RoutePatterns[:n], route.RoutePatterns) {
		return true // the path isn't the one that chi routed on: http.StripPrefix is in between
	}
	return found && len(whole.RoutePatterns) == n
}

// rawPath returns the path that chi routes on.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.Path
}

// Path returns the URL's path with each segment decoded once. Empty and dot segments are removed (RFC 3986,
// section 5.2.4). A slash or a percent sign inside a segment stays escaped. A bad escape is an error.
func Path(u *url.URL) (string, error) {
	clean, err := cleanPath(escapedPath(u))
	return "/" + clean, err
}

// escapedPath is url.URL.EscapedPath, also for paths in which the client left a character unescaped that
// should be escaped. Browsers send | that way, and EscapedPath would then turn the %2F of a|b%2Fc into a
// slash.
func escapedPath(u *url.URL) string {
	if p, err := url.PathUnescape(u.RawPath); err == nil && p == u.Path {
		return u.RawPath
	}
	return u.EscapedPath()
}

// cleanPath decodes and cleans an escaped path. The result doesn't begin with a slash.
func cleanPath(escaped string) (string, error) {
	var clean []string
	for segment := range strings.SplitSeq(escaped, "/") {
		s, err := url.PathUnescape(segment)
		if err != nil {
			return "", err
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

// Value returns the path value of that name, decoded once under either router. The value of a wildcard that
// spans segments ({path...}, or * under chi) is decoded and cleaned like that of [Path], and doesn't begin
// with a slash. found is false if the route has no such value. A bad escape is an error.
func Value(r *http.Request, name string) (value string, found bool, err error) {
	escaped, found := escapedValue(r, name)
	switch {
	case !found:
		return "", false, nil
	case name == "*" || spansSegments(r, name):
		value, err = cleanPath(escaped)
	default:
		value, err = url.PathUnescape(escaped)
	}
	return value, true, err
}

// escapedValue returns a path value, escaped. ServeMux decodes its values. chi's are as in the URL's
// RawPath if that is set, and otherwise decoded too.
func escapedValue(r *http.Request, name string) (escaped string, found bool) {
	value := r.PathValue(name)

	route := chi.RouteContext(r.Context())
	if route != nil && slices.Contains(route.URLParams.Keys, name) {
		raw := route.URLParam(name) // "" for the * of a mount; PathValue has that value
		if raw == value || raw == "" || value == "" {
			return escapeUnless(r.URL.RawPath != "", cmp.Or(raw, value)), true
		}
	}

	if spansSegments(r, name) {
		return escapedEnd(r.URL, value), true
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

// escapedEnd returns the end of the escaped path that decodes to value. In it, a slash inside a segment
// differs from one between two segments.
func escapedEnd(u *url.URL, value string) string {
	escaped := escapedPath(u)
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
