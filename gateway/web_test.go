package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestLoadBalancersAskWithOptions: HAProxy's default is OPTIONS / HTTP/1.0 without a Host. What it
// wants to know is whether to send clients here.
func TestLoadBalancersAskWithOptions(t *testing.T) {
	for _, ready := range []bool{true, false} {
		f := newFake(t, "events")
		if !ready {
			f.ready = func() error { return errors.New("not yet") }
		}
		g := serve(t, f, nil)
		for request, want := range map[string]int{
			"OPTIONS / HTTP/1.0\r\n\r\n":                             503,
			"OPTIONS /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n":    503,
			"OPTIONS /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n":   200,
			"HEAD /healthz HTTP/1.0\r\n\r\n":                         200,
			"POST / HTTP/1.0\r\n\r\n":                                405,
			"OPTIONS / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n":   403,
			"OPTIONS /elsewhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n": 404,
		} {
			if ready && want == 503 {
				want = 200
			}
			conn, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, request)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != want {
				t.Errorf("ready %v: %q is answered with %v, %v; want %d", ready, request, resp, err, want)
			}
			conn.Close()
		}
	}
}

// TestASubprotocolIsChosenOfThoseOffered: a client that offered some takes none for a failure.
func TestASubprotocolIsChosenOfThoseOffered(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	for offer, want := range map[string]string{"": "", "kafka": "kafka", "binary": "binary", "mqtt, binary": "binary", "binary, kafka": "kafka", "mqtt": ""} {
		header := http.Header{}
		if offer != "" {
			header.Set("Sec-WebSocket-Protocol", offer)
		}
		ws, resp, err := g.dialWS(header)
		if err != nil {
			t.Fatalf("%q: %v", offer, err)
		}
		if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != want {
			t.Errorf("of %q %q is chosen, want %q", offer, got, want)
		}
		ws.Close()
	}
}

// TestARequestOfAnyAPIMayBeLarge: a JoinGroup of 5 MiB is legal, and has an answer though the
// coordinator keeps no group of that size. What a request takes is counted before it does.
func TestARequestOfAnyAPIMayBeLarge(t *testing.T) {
	g := serve(t, newFake(t, "events"), func(c *Config) { c.AutoCreateTopics = false })
	c := g.dial()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 3, "large", "consumer", 10_000, 10_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: bytes.Repeat([]byte("m"), 5<<20)}}
	if resp := c.do(join).(*kmsg.JoinGroupResponse); resp.ErrorCode != kerr.GroupMaxSizeReached.Code {
		t.Errorf("JoinGroup: error %d", resp.ErrorCode)
	}
	names := make([]string, 5<<20/200)
	for i := range names {
		names[i] = fmt.Sprintf("%0200d", i)
	}
	if resp := c.do(metadataOf(append(names, "events")...)).(*kmsg.MetadataResponse); len(resp.Topics) != len(names)+1 || resp.Topics[len(names)].ErrorCode != 0 {
		t.Errorf("Metadata: %d topics", len(resp.Topics))
	}
	if held := g.sessions.Requests.Held(); held != 0 {
		t.Errorf("%d bytes are held when it is over", held)
	}
}
