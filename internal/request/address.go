package request

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses of proxies that are trusted to name their clients.
type Proxies []netip.Prefix

// ParseProxies reads prefixes and addresses. Its error names the option and joins all mistakes.
func ParseProxies(option string, prefixes []string) (Proxies, error) {
	var proxies Proxies
	var mistakes []error
	for _, s := range prefixes {
		p, err := parsePrefix(s)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %q: %w", option, s, err))
			continue
		}
		proxies = append(proxies, p)
	}
	return proxies, errors.Join(mistakes...)
}

// parsePrefix reads a prefix, or an address as the prefix that contains only it.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if !strings.Contains(s, "/") {
		var addr netip.Addr
		addr, err = netip.ParseAddr(s)
		p = netip.PrefixFrom(addr.WithZone(""), addr.BitLen()) // a peer's zone doesn't count either
	}
	if err != nil {
		return p, err
	}

	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return p, errors.New("trusts everyone, so that any client could choose its address")
	}
	return p.Masked(), nil
}

// ClientAddr returns the address of the request's client, in the form of RemoteAddr. If the peer is a
// trusted proxy, that is the last address in X-Forwarded-For that doesn't belong to a trusted proxy, with
// port 0.
func (p Proxies) ClientAddr(r *http.Request) string {
	if len(p) == 0 {
		return r.RemoteAddr
	}
	peer, ok := parseAddr(r.RemoteAddr)
	if !ok || !p.trusts(peer) {
		return r.RemoteAddr
	}

	client := peer
	for hop := range hops(r.Header) {
		addr, ok := parseAddr(hop)
		if !ok {
			break
		}
		client = addr
		if !p.trusts(addr) {
			break
		}
	}

	if client == peer {
		return r.RemoteAddr
	}
	return net.JoinHostPort(client.String(), "0")
}

func (p Proxies) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// hops yields what the proxies added to X-Forwarded-For, the last one first.
func hops(h http.Header) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(h.Values("X-Forwarded-For")) {
			for comma := len(line); comma >= 0; {
				line = line[:comma]
				comma = strings.LastIndexByte(line, ',')
				if !yield(strings.TrimSpace(line[comma+1:])) {
					return
				}
			}
		}
	}
}

// maxAddr is more than the length of any address with brackets, zone and port.
const maxAddr = 80

// parseAddr reads an address, bare or in brackets, with or without a port. It drops the zone. An IPv4
// address mapped to IPv6 becomes an IPv4 address.
func parseAddr(s string) (addr netip.Addr, ok bool) {
	if len(s) > maxAddr {
		return addr, false
	}

	bare := s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		bare = inner[:len(inner)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(s)
		addr = withPort.Addr()
	}

	if strings.ContainsAny(addr.Zone(), "[]") { // from "[::1%x]:]:80", which netip accepts
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), err == nil
}

// AddrKey returns the part of a RemoteAddr that belongs to one customer: an IPv4 address, or the /64 prefix
// of an IPv6 address. It returns anything else unchanged.
func AddrKey(remoteAddr string) string {
	addr, ok := parseAddr(remoteAddr)
	switch {
	case !ok:
		return remoteAddr
	case addr.Is4():
		return addr.String()
	default:
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
}
