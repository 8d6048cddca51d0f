package request

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Site says which hosts a request may name and which pages it may come from. [ParsePatterns] returns its
// patterns. The zero Site allows every host, and the pages of the request's own host.
type Site struct {
	Hosts     []string // empty: any host
	Origins   []string // in addition to the request's own host
	AnyOrigin bool
}

// AllowsHost reports whether the host that the request names is allowed.
func (s *Site) AllowsHost(r *http.Request) bool {
	return len(s.Hosts) == 0 || matchesHost(s.Hosts, strings.ToLower(r.Host))
}

// AllowsOrigin reports whether the request comes from no page, from a page of its own host, or from an
// allowed page (RFC 6454; RFC 6455, section 10.2).
func (s *Site) AllowsOrigin(r *http.Request) bool {
	return s.AnyOrigin || originAllowed(r, s.Origins)
}

// Remedy returns the option that would let the request in, "" if the site allows it.
func (s *Site) Remedy(r *http.Request) string {
	switch o, ok := parseOrigin(r.Header.Get("Origin")); {
	case !s.AllowsHost(r):
		return fmt.Sprintf("WithHosts(%q)", r.Host)
	case s.AllowsOrigin(r):
		return ""
	case !ok || len(r.Header.Values("Origin")) > 1:
		return "WithInsecureAnyOrigin()"
	default:
		return fmt.Sprintf("WithOrigins(%q)", o.scheme+"://"+o.host)
	}
}

func matchesHost(patterns []string, host string) bool {
	name := host
	if _, port, err := net.SplitHostPort(host); err == nil {
		name = strings.TrimSuffix(host, ":"+port) // [::1] keeps its brackets
	}
	return matchesAny(patterns, host) || matchesAny(patterns, name)
}

func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, s)
		return p == s || ok && err == nil // equal: [::1] isn't meant as a class of characters
	})
}

func originAllowed(r *http.Request, patterns []string) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 { // not from a page (RFC 6455, section 4.2.1)
		return true
	}
	o, ok := parseOrigin(origins[0])
	if !ok || len(origins) > 1 { // "null", or more than one (RFC 6454, sections 7.1 and 7.3)
		return false
	}

	if slices.ContainsFunc(patterns, o.matches) {
		return true
	}

	// The same scheme, host and port (RFC 6454, section 5).
	web := o.scheme == "https" || o.scheme == "http" && r.TLS == nil // without TLS: a proxy may have ended it
	host := withoutPort(o.host, o.port())
	return web && host != "" && host == withoutPort(strings.ToLower(r.Host), o.port())
}

// origin is the scheme and the host of a page.
type origin struct {
	scheme string // http and https also for ws and wss: some clients send the URL that they dial
	host   string // with the port if it was named; "" for schemes without a host, as in file://
}

// parseOrigin reads an origin: a scheme and a host, and at most a slash at the end.
func parseOrigin(s string) (o origin, ok bool) {
	s = strings.ToLower(s)
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return o, false
	}
	whole := u.Scheme + "://" + u.Host
	if s != whole && s != whole+"/" {
		return o, false
	}
	return origin{asPageScheme(u.Scheme), u.Host}, true
}

// asPageScheme returns the scheme of the pages that dial a WebSocket of this scheme.
func asPageScheme(scheme string) string {
	switch scheme {
	case "ws":
		return "http"
	case "wss":
		return "https"
	}
	return scheme
}

// port returns the scheme's default port, with the colon, or "" if it has none.
func (o origin) port() string {
	switch o.scheme {
	case "http":
		return ":80"
	case "https":
		return ":443"
	}
	return ""
}

// withoutPort removes a port from a host.
func withoutPort(host, port string) string { return strings.TrimSuffix(host, port) }

// matches reports whether a pattern of Site.Origins allows the origin. Either may name the scheme's default
// port.
func (o origin) matches(pattern string) bool {
	wanted := pattern
	if scheme, host, ok := strings.Cut(pattern, "://"); ok {
		if asPageScheme(scheme) != o.scheme && !matchesAny([]string{scheme}, o.scheme) {
			return false
		}
		if wanted = host; host == o.host {
			return true // file:// has no host
		}
	}

	if o.host == "" {
		return false
	}
	bare := withoutPort(o.host, o.port())
	return matchesAny([]string{wanted}, o.host) || matchesAny([]string{wanted, withoutPort(wanted, o.port())}, bare)
}

// ParsePatterns returns patterns in lower case, as [Site] takes them. Its error names the option and joins
// all mistakes: patterns that match everything, and patterns that can't match anything.
func ParsePatterns(option string, patterns []string) ([]string, error) {
	var lower []string
	var mistakes []error
	for _, p := range patterns {
		lower = append(lower, strings.ToLower(p))

		scheme, host, ok := strings.Cut(p, "://")
		if !ok {
			scheme, host = "http", p
		}
		switch _, err := path.Match(p, ""); {
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("%s: %q: %w", option, p, err))
		case strings.Trim(anyPort.ReplaceAllString(host, ""), "*?.:") == "" && mayBeSite(scheme):
			mistakes = append(mistakes, fmt.Errorf("%s: %q lets any site act as the user; see WithInsecureAnyOrigin", option, p))
		case strings.ContainsAny(host, "/@ ") || strings.HasPrefix(p, "://"):
			mistakes = append(mistakes, fmt.Errorf("%s: %q never matches: a pattern is a host, or scheme://host", option, p))
		}
	}
	return lower, errors.Join(mistakes...)
}

// anyPort matches the port of a pattern. A site may choose any port, so the port restricts nothing.
var anyPort = regexp.MustCompile(`:[0-9*?]*$`)

// mayBeSite reports whether pages with this scheme, which may be a pattern, come from sites and not from a
// program's own files.
func mayBeSite(scheme string) bool {
	return strings.ContainsAny(scheme, `*?[\`) ||
		slices.Contains([]string{"", "http", "https", "ws", "wss", "ftp"}, strings.ToLower(scheme))
}
