package listen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// allowList decides which names an HTTP or WebSocket request may call this node
// by, and which web pages it may come from. Without it any page could read a
// developer's broker: its own name, rebound to 127.0.0.1, would be of its origin
// (DNS rebinding), and a WebSocket is not held to one origin at all.
type allowList struct {
	hosts   map[string]bool // lower case, no port
	origins map[string]bool // scheme://host[:port], lower case, default port left out
	anyPort map[string]bool // scheme://host, lower case: whatever the port
	leaves  []*x509.Certificate
	tls     *tls.Config // nil: none
}

// newAllowList takes names with or without port, and origins as browsers write
// them. What is not one is an error.
func newAllowList(cfg Config, advertise *Address) (*allowList, error) {
	a := &allowList{hosts: map[string]bool{}, origins: map[string]bool{}, anyPort: map[string]bool{}}
	if advertise != nil {
		a.hosts[canonicalHost(advertise.Host)] = true
	}
	for _, name := range cfg.AllowHosts {
		host, _, ok := splitHost(name)
		if !ok {
			return nil, fmt.Errorf("allowed host %q is not a name or address", name)
		}
		a.hosts[canonicalHost(host)] = true
	}
	for _, origin := range cfg.AllowOrigins {
		whole, anyPort := strings.CutSuffix(origin, ":*")
		o, ok := canonicalOrigin(whole)
		switch {
		case !ok || anyPort && withoutPort(o) != o:
			return nil, fmt.Errorf("allowed origin %q: want scheme://host, scheme://host:port or scheme://host:*", origin)
		case anyPort:
			a.anyPort[o] = true
		default:
			a.origins[o] = true
		}
	}
	a.tls = cfg.TLS
	if cfg.TLS != nil {
		for i := range cfg.TLS.Certificates {
			leaf := cfg.TLS.Certificates[i].Leaf
			if leaf == nil && len(cfg.TLS.Certificates[i].Certificate) > 0 {
				var err error
				if leaf, err = x509.ParseCertificate(cfg.TLS.Certificates[i].Certificate[0]); err != nil {
					return nil, fmt.Errorf("TLS certificate: %w", err)
				}
			}
			if leaf != nil {
				a.leaves = append(a.leaves, leaf)
			}
		}
	}
	return a, nil
}

// host reports whether the request may call this node by that name: a loopback
// name or address, the address the connection arrived at, a configured name, or
// over TLS a name that the certificate is for (nobody else can have a page there).
// A request of HTTP/1.0 without Host comes from a health check, not from a browser.
func (a *allowList) host(header string, local net.Addr, state *tls.ConnectionState) bool {
	if header == "" {
		return true
	}
	host, _, ok := splitHost(header)
	if !ok {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		here, _ := ipOf(local)
		if ip = ip.Unmap(); ip.IsLoopback() || ip == here {
			return true
		}
	}
	name := canonicalHost(host)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || a.hosts[name] {
		return true
	}
	if state != nil {
		for _, leaf := range a.certificates() {
			if leaf.VerifyHostname(name) == nil {
				return true
			}
		}
	}
	return false
}

// certificates are those that the node shows now.
func (a *allowList) certificates() []*x509.Certificate {
	if a.tls.GetConfigForClient == nil {
		return a.leaves
	}
	now, err := a.tls.GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil || now == nil {
		return a.leaves
	}
	var leaves []*x509.Certificate
	for _, c := range now.Certificates {
		if c.Leaf != nil {
			leaves = append(leaves, c.Leaf)
		}
	}
	return leaves
}

// origin reports whether the request comes from a page that may talk to this
// node: one of this node's own, of the same scheme, host and port, or a configured one. A page of
// another port is another program's, and browsers send along what they remember for the host. A
// request without Origin does not come from a page of another site: browsers always say where a
// WebSocket or a cross-origin request comes from. sibling tells of pages of the cluster's other
// nodes.
func (a *allowList) origin(r *http.Request, state *tls.ConnectionState, sibling func(string, *tls.ConnectionState) bool) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	origin, ok := canonicalOrigin(values[0])
	if !ok || len(values) > 1 {
		return false // "null" among them
	}
	if a.origins[origin] || a.anyPort[withoutPort(origin)] {
		return true
	}
	scheme := "http"
	if state != nil {
		scheme = "https"
	}
	own, ok := canonicalOrigin(scheme + "://" + r.Host) // a host that was looked at before
	return ok && own == origin || sibling(origin, state)
}

// withoutPort takes the port off an origin in its canonical form.
func withoutPort(origin string) string {
	scheme, host, _ := strings.Cut(origin, "://")
	if at := strings.LastIndexByte(host, ':'); at > strings.LastIndexByte(host, ']') {
		host = host[:at]
	}
	return scheme + "://" + host
}

func canonicalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func canonicalOrigin(origin string) (string, bool) {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	host, port, ok := splitHost(u.Host)
	if !ok {
		return "", false
	}
	scheme := strings.ToLower(u.Scheme)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == 0 || scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return scheme + "://" + canonicalHost(host), true
	}
	return fmt.Sprintf("%s://%s:%d", scheme, canonicalHost(host), port), true
}
