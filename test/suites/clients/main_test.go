// Package clients holds Kafka clients against a real cluster: each library and
// tool produces, with each compression it has, what is then read back by itself
// and by others, through every listener.
//
// You are here: the outside, one file per client. What a client needs to be told
// before it works stands at the top of its file and in docs/clients.md.
package clients

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { harness.Main(m) }

// route is one way in.
type route struct {
	name string
	addr string
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: TCP
}

func (r route) opts() []kgo.Opt {
	opts := harness.Old(r.addr)
	if r.dial != nil {
		opts = append(opts, kgo.Dialer(r.dial))
	}
	return opts
}

// tcpRoutes are the ways in that need nothing of the client: each node, and the shim.
func tcpRoutes(c *harness.Cluster) []route {
	var out []route
	for _, n := range c.Nodes {
		out = append(out, route{name: n.ID, addr: n.Addr()})
	}
	return append(out, route{name: "shim", addr: c.ShimAddr()})
}

// routes adds the way of Go clients: WebSocket with package shim's dialer.
func routes(c *harness.Cluster) []route {
	d := &shim.Dialer{}
	return append(tcpRoutes(c), route{name: "websocket", addr: c.Node(1).Addr(), dial: d.DialContext})
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// sample gives n key-value pairs of different sizes, some with a nil key, some
// with an empty value.
func sample(n int) (keys, values [][]byte) {
	for i := range n {
		var key []byte
		if i%3 != 0 {
			key = fmt.Appendf(nil, "key-%d", i)
		}
		value := fmt.Appendf(nil, "value-%d-%s", i, strings.Repeat("abc", i%50))
		if i%17 == 5 {
			value = []byte{}
		}
		keys, values = append(keys, key), append(values, value)
	}
	return keys, values
}

// line makes a value of text that survives tools that split at newlines.
func lines(n int) []string {
	var out []string
	for i := range n {
		sum := sha256.Sum256(fmt.Append(nil, i))
		out = append(out, fmt.Sprintf("line %d %x", i, sum[:1+i%32]))
	}
	return out
}

// readBack reads a partition through a node with franz-go held to 0.8.0, so that
// what one client wrote is judged by another.
func readBack(t *testing.T, c *harness.Cluster, topic string, partition int32, n int) []*kgo.Record {
	t.Helper()
	records, err := harness.ReadAll(testContext(t), harness.Old(c.Node(2).Addr()), topic, partition, n)
	if err != nil {
		t.Fatalf("read back: %v", err)
	}
	if len(records) != n {
		t.Fatalf("read back %d records, want %d", len(records), n)
	}
	for i, r := range records {
		if r.Offset != int64(i) {
			t.Fatalf("record %d has offset %d", i, r.Offset)
		}
	}
	return records
}

func mustCreate(t *testing.T, c *harness.Cluster, topic string, partitions int32) {
	t.Helper()
	if err := c.CreateTopic(testContext(t), topic, partitions, int16(min(3, len(c.Nodes)))); err != nil {
		t.Fatal(err)
	}
}
