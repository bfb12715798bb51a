package main

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// scripted is a node that answers what it is told to, the last answer of a kind again and again.
type scripted struct {
	mu      sync.Mutex
	answers map[uint16][]any
	asked   map[uint16]int
}

func newScripted(t *testing.T, answers map[uint16][]any) (s *scripted, addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &scripted{answers: answers, asked: map[uint16]int{}}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	return s, l.Addr().String()
}

func (s *scripted) serve(c net.Conn) {
	defer c.Close()
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	request := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, request); err != nil {
		return
	}
	key := binary.BigEndian.Uint16(request)
	s.mu.Lock()
	list := s.answers[key]
	answer := list[min(s.asked[key], len(list)-1)]
	s.asked[key]++
	s.mu.Unlock()
	text, err := json.Marshal(answer)
	if raw, ok := answer.(string); ok {
		text, err = []byte(raw), nil
	}
	if err != nil {
		panic(err)
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(4+2+4+len(text)))
	out = append(out, request[4:8]...)
	out = binary.BigEndian.AppendUint16(out, 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(text)))
	c.Write(append(out, text...))
}

func (s *scripted) times(key uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key]
}

func statusOf(confirmed bool, voters string, nodes ...fsm.NodeID) *admin.Status {
	s := &admin.Status{ClusterID: "c", FeatureLevel: fsm.FeatureLevel, Confirmed: confirmed, CatalogVoters: strings.Fields(voters)}
	for _, id := range nodes {
		s.Nodes = append(s.Nodes, admin.NodeStatus{ID: id, Alive: true, FeatureLevel: fsm.FeatureLevel})
		s.Controller = nodes[0]
	}
	return s
}

// TestWaitingBelievesOnlyAConfirmedCatalog: a node that has just started lists nobody, and one that
// the catalog does not name has not left before it has given up its vote. A passing change of
// leaders ends nothing.
func TestWaitingBelievesOnlyAConfirmedCatalog(t *testing.T) {
	for _, args := range [][]string{{"decommission", "n3"}, {"replace", "n3", "n4"}} {
		statuses := []any{
			&admin.Status{Unconfirmed: "not in a cluster yet"},
			// just started: the catalog is empty
			statusOf(false, ""),
			statusOf(false, "n1.a n2.a", "n1", "n2"),           // an old catalog, of before n3 came
			statusOf(true, "n1.a n2.a n3.a", "n1", "n2", "n3"), // it is there
			statusOf(true, "n1.a n2.a n3.a", "n1", "n2"),       // it still votes
			statusOf(true, "", "n1", "n2"),                     // who votes is not known
			statusOf(false, "n1.a n2.a", "n1", "n2"),           // the leader has changed
			statusOf(true, "n1.a n2.a", "n1", "n2"),            // it has left
		}
		s, addr := newScripted(t, map[uint16][]any{
			statusKey: statuses,
			administerKey: {
				admin.Answer{Error: "the partition has no leader", Retriable: true},
				admin.Answer{},
			},
		})
		out, _ := command(t, 0, "", append(append([]string{"node"}, args...), "--brokers", addr, "--wait")...)
		if !strings.Contains(out, "node n3 has left the cluster") {
			t.Errorf("%v: it says %q", args, out)
		}
		if got := s.times(statusKey); got != len(statuses) {
			t.Errorf("%v: it asked %d times, and only the answer %d says that the node has left", args, got, len(statuses))
		}
		if got := s.times(administerKey); got != 2 {
			t.Errorf("%v: it was asked for %d times", args, got)
		}
	}
}

// TestWhoDoesNotKnowSaysSo: every command that lists something ends with an error where something
// may be missing.
func TestWhoDoesNotKnowSaysSo(t *testing.T) {
	why := "this node has just started"
	empty, old := &admin.Status{ClusterID: "c", Unconfirmed: why}, statusOf(false, "", "n1", "n2")
	old.Unconfirmed = why
	for _, args := range [][]string{
		{"node", "list"}, {"node", "list", "--json"}, {"cluster", "status"}, {"cluster", "status", "--json"},
		{"topic", "list"}, {"topic", "list", "--json"}, {"topic", "describe"}, {"topic", "describe", "events"}, {"cluster", "verify", "events"},
	} {
		for name, status := range map[string]*admin.Status{"empty": empty, "old": old} {
			t.Run(strings.Join(args, " ")+"/"+name, func(t *testing.T) {
				t.Parallel()
				_, addr := newScripted(t, map[uint16][]any{statusKey: {status}})
				out, says := command(t, 1, "", append(args, "--brokers", addr, "--timeout", "1s")...)
				if !strings.Contains(says, why) {
					t.Errorf("it says %q, %q", out, says)
				}
				if strings.Contains(out, "0 of 0 nodes") {
					t.Errorf("it shows nothing as if it were something: %q", out)
				}
			})
		}
	}
}

// TestAnOlderNodeIsBelievedIfItKnowsAnything: it does not say whether its status is confirmed, and
// a rolling upgrade goes on.
func TestAnOlderNodeIsBelievedIfItKnowsAnything(t *testing.T) {
	_, addr := newScripted(t, map[uint16][]any{statusKey: {`{"cluster_id":"c","controller":"n1","nodes":[{"id":"n1","alive":true,"level":2}]}`}})
	if out, _ := command(t, 0, "", "node", "list", "--brokers", addr); !strings.Contains(out, "n1") {
		t.Errorf("%q", out)
	}
	_, addr = newScripted(t, map[uint16][]any{statusKey: {`{"cluster_id":"c","controller":"","nodes":[]}`}})
	command(t, 1, "", "node", "list", "--brokers", addr, "--timeout", "1s")
}
