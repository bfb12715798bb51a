package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/fsm"
)

func nodesOf(text string) (nodes []Node) {
	for field := range strings.FieldsSeq(text) {
		id, zone, _ := strings.Cut(field, "/")
		nodes = append(nodes, Node{ID: fsm.NodeID(id), Zone: zone})
	}
	return nodes
}

func placedOf(text string) (out []Placed) {
	for field := range strings.FieldsSeq(text) {
		p := Placed{}
		field, p.Fixed = strings.CutSuffix(field, "!")
		for id := range strings.SplitSeq(field, ",") {
			p.Replicas = append(p.Replicas, fsm.NodeID(id))
		}
		out = append(out, p)
	}
	return out
}

func TestBalance(t *testing.T) {
	for _, c := range []struct{ name, nodes, partitions, want string }{
		{"even", "a b c", "a,b b,c c,a", ""},
		{"one more is even", "a b", "a", ""},
		{"a new node", "a b c d", "a,b,c b,c,a c,a,b a,b,c", "0:a>d 2:b>d 1:c>d"},
		{"leaders go to who leads less", "a b", "a a a a", "0:a>b 1:a>b"},
		{"on the move already", "a b", "a! a! a a!", "2:a>b"},
		{"no second replica on a node", "a b", "a,b a,b a", ""},
		{"zones are kept", "a/x b/y c/y", "a,b a,b a,b", "0:b>c"},
		{"fewer zones never", "a/x b/x c/y", "a,c b,c a,c b,c", ""},
		{"a node that is not given stays", "a b", "z,a z,a", "0:a>b"},
		{"nothing to place on", "", "a,b", ""},
	} {
		var got []string
		for _, m := range Balance(nodesOf(c.nodes), placedOf(c.partitions), 10) {
			got = append(got, fmt.Sprintf("%d:%s>%s", m.Partition, m.From, m.To))
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		nodes, replicas, instead, want string
		load                           map[string]int
	}{
		{"a b c", "a,b", "a", "c", nil},
		{"a b c d", "a,b", "a", "d", map[string]int{"c": 2, "d": 1}},
		{"a/x b/y c/y d/x", "a,b", "a", "d", nil}, // x is free when a goes
		{"a/x b/y c/y d/z", "a,b", "a", "d", map[string]int{"d": 9}},
		{"a b", "a,b", "a", "", nil},
		{"a b c", "a,b", "", "c", nil},
	} {
		nodes := nodesOf(c.nodes)
		for i := range nodes {
			nodes[i].Replicas = c.load[string(nodes[i].ID)]
		}
		got, ok := Target(nodes, placedOf(c.replicas)[0].Replicas, fsm.NodeID(c.instead))
		if string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, ok)
		}
	}
}

// Balance ends, keeps replicas apart, and leaves nobody who could be relieved without zones.
func TestBalanceEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 6).Draw(t, "nodes")
		var nodes []Node
		for i := range count {
			nodes = append(nodes, Node{ID: fsm.NodeID(fmt.Sprint("n", i))})
		}
		var placed []Placed
		for range rapid.IntRange(0, 30).Draw(t, "partitions") {
			order := rapid.Permutation(nodes).Draw(t, "order")
			p := Placed{}
			for _, n := range order[:rapid.IntRange(1, count).Draw(t, "rf")] {
				p.Replicas = append(p.Replicas, n.ID)
			}
			placed = append(placed, p)
		}
		moves := Balance(nodes, placed, 1000)
		if len(moves) == 1000 {
			t.Fatal("it does not end")
		}
		load := map[fsm.NodeID]int{}
		for _, m := range moves {
			p := placed[m.Partition].Replicas
			k := slices.Index(p, m.From)
			if k < 0 || slices.Contains(p, m.To) {
				t.Fatalf("move %+v of %q", m, p)
			}
			p[k] = m.To
		}
		for _, p := range placed {
			for _, id := range p.Replicas {
				load[id]++
			}
		}
		for _, p := range placed {
			for _, from := range p.Replicas {
				for _, to := range nodes {
					if load[from]-load[to.ID] > 1 && !slices.Contains(p.Replicas, to.ID) {
						t.Fatalf("%s has %d, %s has %d, and a partition could move", from, load[from], to.ID, load[to.ID])
					}
				}
			}
		}
	})
}
