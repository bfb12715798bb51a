package listen

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/console"
)

// The console is a page that this node serves and that goes on with another node when this one is
// gone. A browser then says that the page's origin is this node's, and allows what the page's
// policy lists. So both are of the same list, the cluster's client addresses: nobody else has a
// page there.

// originOf gives scheme://host:port of an address, "" of all addresses of a machine.
func originOf(scheme, host string, port int32) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return ""
	}
	o, _ := canonicalOrigin(scheme + "://" + Address{host, port}.String())
	return o
}

// sibling reports whether an origin, in its canonical form, is another node's page. The scheme has
// to be that of this connection.
func (s *Server) sibling(origin string, state *tls.ConnectionState) bool {
	if s.cfg.Gateways == nil {
		return false
	}
	scheme := "http"
	if state != nil {
		scheme = "https"
	}
	for _, at := range s.cfg.Gateways() {
		if originOf(scheme, at.Host, at.Port) == origin {
			return true
		}
		// A loopback address has several names, and is a page's host by any of them.
		if ip, err := netip.ParseAddr(at.Host); err != nil || !ip.IsLoopback() {
			continue
		}
		for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
			if originOf(scheme, name, at.Port) == origin {
				return true
			}
		}
	}
	return false
}

// servePage answers a browser that asks for "/".
func (s *Server) servePage(w http.ResponseWriter, r *http.Request, state *tls.ConnectionState) {
	scheme := "ws"
	if state != nil {
		scheme = "wss"
	}
	// In some browsers 'self' has no WebSockets.
	own, ok := canonicalOrigin("http://" + r.Host)
	if !ok {
		own = ""
	}
	connect := []string{strings.Replace(own, "http", scheme, 1)}
	for _, at := range s.cfg.Gateways() {
		connect = append(connect, originOf(scheme, at.Host, at.Port))
	}
	slices.Sort(connect)
	connect = slices.DeleteFunc(slices.Compact(connect), func(o string) bool {
		// A policy has no addresses of IPv6; 'self' is any.
		return o == "" || strings.Contains(o, "[")
	})
	console.ServePage(w, r, connect)
}
