package listen

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/trimaran-io/trimaran/gateway/login"
)

type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr))
}

func TestStrangers(t *testing.T) {
	l, err := login.New(login.Config{Required: true})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Login: l, Strangers: Strangers{Most: 3, PerAddress: 2, Proxies: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}}
	var s strangers
	s.init()
	add := func(addr string) (*conn, *conn, error) {
		c := &conn{Conn: from{addr: addr}}
		oldest, err := s.add(c, cfg)
		return c, oldest, err
	}
	a, _, _ := add("10.0.0.1:1")
	b, _, _ := add("10.0.0.1:2")
	if _, _, err := add("10.0.0.1:3"); err == nil {
		t.Error("a third connection of one address")
	}
	s.remove(a, cfg)
	c, oldest, err := add("10.0.0.1:4")
	if err != nil || oldest != nil {
		t.Errorf("when one has gone: %v, %v", oldest, err)
	}
	s.known(b)
	for _, addr := range []string{"10.0.0.2:1", "10.0.0.3:1"} {
		if _, oldest, err := add(addr); err != nil || oldest != nil {
			t.Errorf("%s: %v, %v", addr, oldest, err)
		}
	}
	if _, oldest, err := add("10.0.0.4:1"); err != nil || oldest != c {
		t.Errorf("the oldest stays: %v, %v", oldest, err)
	}
	for i, want := range []bool{true, true, false} {
		if _, _, err := add(fmt.Sprintf("[2001:db8::%d]:1", i)); (err == nil) != want {
			t.Errorf("connection %d of one network of IPv6: %v", i, err)
		}
	}
	for range 10 {
		if _, oldest, err := add("10.9.1.1:1"); err != nil || oldest != nil {
			t.Errorf("a proxy that is trusted: %v, %v", oldest, err)
		}
	}
}
