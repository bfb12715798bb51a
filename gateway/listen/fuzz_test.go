package listen

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/shim"
)

// Whatever a WebSocket's handshake says: nothing panics, there is one credential or none, and only
// who is trusted changes where a client comes from. Nobody makes a way safe that is not.
func FuzzHandshakeHeaders(f *testing.F) {
	f.Add("Bearer a.b.c", "", "", "", false)
	f.Add("Basic YTpi", "", "", "192.0.2.7:1 tls", true)
	f.Add("", "e30.e30.", "", "[::ffff:192.0.2.7%x]:1 clear", false)
	f.Add("", "", "trimaran, trimaran.bearer.YQ", "192.0.2.7:1", true)
	trusted := netip.MustParsePrefix("192.0.2.0/24")
	f.Fuzz(func(t *testing.T, authorization, ticket, protocols, client string, clear bool) {
		r := &http.Request{Header: http.Header{}}
		for name, value := range map[string]string{
			"Authorization": authorization, shim.TicketHeader: ticket, "Sec-Websocket-Protocol": protocols, shim.ClientHeader: client,
		} {
			if value != "" {
				r.Header[http.CanonicalHeaderKey(name)] = []string{value}
			}
		}
		if c, err := readCredential(r); err == nil {
			switch c.kind {
			case "", "basic", "bearer", "ticket":
			default:
				t.Fatalf("a credential of kind %q", c.kind)
			}
			if c.kind == "ticket" && c.secret != ticket {
				t.Fatalf("a ticket %q of %q", c.secret, ticket)
			}
		}
		for host, believed := range map[string]bool{"192.0.2.1": true, "198.51.100.1": false} {
			c := &webConn{Turns: frames.NewTurns(from{addr: host + ":1"})}
			s := &Server{cfg: Config{Strangers: Strangers{Proxies: []netip.Prefix{trusted}}}}
			facts := login.Facts{Host: host, Clear: clear}
			err := s.forwarded(r, c, &facts)
			if clear && !facts.Clear {
				t.Fatal("what can be read on the way is called safe")
			}
			if facts.Host != host && (!believed || err != nil) {
				t.Fatalf("%s is taken for %s", host, facts.Host)
			}
			if _, perr := netip.ParseAddr(facts.Host); perr != nil {
				t.Fatalf("the address %q", facts.Host)
			}
		}
	})
}
