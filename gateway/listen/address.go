package listen

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Address is where clients are sent: the host is a DNS name or an IP
// without brackets, the port is 1 to 65535.
type Address struct {
	Host string
	Port int32
}

func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// ParseAddress reads host:port and takes nothing that could not be one: it ends
// up in what other programs parse.
func ParseAddress(s string) (Address, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !validHost(host) {
		return Address{}, fmt.Errorf("address %s: want host:port", Shown(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return Address{}, fmt.Errorf("address %s: want a port from 1 to 65535", Shown(s))
	}
	return Address{host, int32(n)}, nil
}

// validHost reports whether s is an IP address or follows the rules of a DNS name
// (RFC 1123, and '_', which names inside clusters have).
func validHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == ""
	}
	s = strings.TrimSuffix(s, ".")
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// splitHost takes a Host header apart; port is 0 if it has none.
func splitHost(header string) (host string, port int32, ok bool) {
	if a, err := ParseAddress(header); err == nil {
		return a.Host, a.Port, true
	}
	host = header
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return host, 0, validHost(host)
}

// ofConnection is the address by which a client reached a plain or TLS
// connection: the configured one, else the name in the TLS handshake with the
// port that it arrived at, else the local address.
func (s *Server) ofConnection(local net.Addr, state *tls.ConnectionState) Address {
	if s.advertise != nil {
		return *s.advertise
	}
	ip, port := ipOf(local)
	if state != nil && validHost(state.ServerName) {
		return Address{state.ServerName, port}
	}
	if !ip.IsValid() {
		return Address{"localhost", port} // not a TCP connection
	}
	return Address{ip.String(), port}
}

// ofWebSocket is the address by which a client reached a WebSocket: what the shim
// says in its header, else the configured one, else the Host header.
func (s *Server) ofWebSocket(header *Address, host string, local net.Addr, state *tls.ConnectionState) Address {
	if header != nil {
		return *header
	}
	if s.advertise != nil {
		return *s.advertise
	}
	if name, port, ok := splitHost(host); ok {
		if port == 0 {
			port = 80
			if state != nil {
				port = 443
			}
		}
		return Address{name, port}
	}
	return s.ofConnection(local, state)
}

// ipOf gives IP and port of an address of a TCP connection; the IP is not valid
// for any other.
func ipOf(a net.Addr) (netip.Addr, int32) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, 0
	}
	ap := tcp.AddrPort()
	return ap.Addr().Unmap().WithZone(""), int32(ap.Port())
}

func isLoopback(a net.Addr) bool {
	ip, _ := ipOf(a)
	return ip.IsLoopback()
}

// Shown makes what came from a client fit for a log line or an error: quoted and
// at most 64 bytes of it.
func Shown(s string) string {
	if len(s) > 64 {
		return strconv.Quote(s[:64]) + "…"
	}
	return strconv.Quote(s)
}
