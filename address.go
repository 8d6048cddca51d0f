package wsroom

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

// WithTrustedProxies names the proxies in front, by prefix ("10.0.0.0/8") or address ("::1"). Where a
// request's peer is one of them, its RemoteAddr becomes the client's: the last address in
// X-Forwarded-For that isn't a trusted proxy's, with port 0, since its port isn't known. That is what
// all functions that get the request see, and what Conn.RemoteAddr returns. The header of any other
// peer, and what stands to the left of the client's address, could be anyone's invention and is
// ignored; so is what stands to the left of an entry that is no address. A peer on a Unix socket has
// no address and is no trusted proxy.
func WithTrustedProxies(prefixes ...string) Option {
	own := slices.Clone(prefixes)
	return func(c *config) error {
		var mistakes []error
		for _, s := range own {
			p, err := parsePrefix(s)
			if err != nil {
				mistakes = append(mistakes, fmt.Errorf("WithTrustedProxies: %q: %w", s, err))
				continue
			}
			c.proxies = append(c.proxies, p)
		}
		return errors.Join(mistakes...)
	}
}

// parsePrefix reads a prefix, or an address as the prefix that holds nothing else.
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

// clientAddr returns the address of the request's client, in the form of RemoteAddr.
func (c *config) clientAddr(r *http.Request) string {
	if len(c.proxies) == 0 {
		return r.RemoteAddr
	}
	peer, ok := parseAddr(r.RemoteAddr)
	if !ok || !c.trusts(peer) {
		return r.RemoteAddr
	}
	client := peer
	for hop := range hops(r.Header) {
		addr, ok := parseAddr(hop)
		if !ok {
			break
		}
		client = addr
		if !c.trusts(addr) {
			break
		}
	}
	if client == peer {
		return r.RemoteAddr
	}
	return net.JoinHostPort(client.String(), "0")
}

func (c *config) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(c.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
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

// maxAddr is more than the text of an address with brackets, zone and port takes.
const maxAddr = 80

// parseAddr reads an address, bare or in brackets, with or without a port. It drops the zone, and an
// IPv4 address mapped to IPv6 is an IPv4 one.
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
	if strings.ContainsAny(addr.Zone(), "[]") { // of "[::1%x]:]:80", which netip takes
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), err == nil
}

// ByAddr is the key for WithMaxConnsPer that counts by the address of the request's RemoteAddr: an
// IPv4 address, or the /64 prefix of an IPv6 one, which is what a single customer gets. Behind a
// proxy, set WithTrustedProxies, or all clients share the proxy's key. A RemoteAddr that is no
// address is a key as it stands: peers on a Unix socket ("@" or "") all share one.
func ByAddr(r *http.Request) string {
	addr, ok := parseAddr(r.RemoteAddr)
	switch {
	case !ok:
		return r.RemoteAddr
	case addr.Is4():
		return addr.String()
	default:
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
}
