package faults

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// refuses starts a node that must end by itself, not with success, and say why.
func refuses(t *testing.T, n *harness.Node, start func() error, why string) {
	t.Helper()
	must(t, start())
	code, err := n.Wait(patience)
	if err != nil {
		t.Fatalf("it goes on: %v\n%s", err, n.Tail(20))
	}
	if code == 0 {
		t.Errorf("it ends with success")
	}
	if !regexp.MustCompile(`(?i)` + why).MatchString(n.Tail(12)) {
		t.Errorf("it does not say %q:\n%s", why, n.Tail(12))
	}
}

func TestWrongDataIsRefused(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	n := c.Node(3)

	t.Run("second process on the same data directory", func(t *testing.T) {
		twin, err := c.AddNode()
		must(t, err)
		defer func() { c.Nodes = c.Nodes[:3] }()
		twin.ID, twin.Data = n.ID, n.Data
		refuses(t, twin, twin.Start, "in use|another process|locked")
		must(t, n.WaitReady(patience))
	})
	t.Run("another node's data directory", func(t *testing.T) {
		must(t, n.Kill9())
		id := n.ID
		n.ID = "n9"
		refuses(t, n, n.Start, `belongs to.*n3|n3.*not.*n9|node id`)
		n.ID = id
		must(t, n.Restart())
	})
	t.Run("an empty directory under a name that is taken", func(t *testing.T) {
		must(t, n.Kill9())
		data := n.Data
		n.Data = t.TempDir()
		refuses(t, n, n.Start, `registered with another data directory|another data directory`)
		n.Data = data
		must(t, n.Restart())
	})
}

// A node that is started among another cluster's nodes, with the data of its own,
// stays apart: both sides refuse the link and say why, and neither sees the
// other's topics. It does not end: a wrong --join must not take a node down.
func TestAnotherClustersNodesAreRefused(t *testing.T) {
	t.Parallel()
	a := harness.New(t, harness.Options{NoShim: true})
	lone := harness.New(t, harness.Options{NoShim: true, Nodes: 1})
	must(t, lone.CreateTopic(t.Context(), "alone", 1, 1))
	must(t, a.CreateTopic(t.Context(), "together", 1, 3))
	n := lone.Node(1)
	must(t, n.Kill9())
	n.ExtraArgs = []string{"--join", harness.Loopback(a.Node(1).Gossip) + "," + harness.Loopback(a.Node(2).Gossip)}
	must(t, n.Start())
	err := harness.Eventually(patience, func() bool {
		return strings.Contains(n.Output(), "different cluster") || strings.Contains(n.Output(), "another cluster")
	})
	if err != nil {
		t.Errorf("it does not say that it met another cluster:\n%s", n.Tail(20))
	}
	must(t, n.WaitReady(patience))
	for _, side := range []struct {
		node      *harness.Node
		has, lack string
	}{{n, "alone", "together"}, {a.Node(1), "together", "alone"}} {
		names := map[string]bool{}
		must(t, harness.Again(side.node.Addr(), patience, func(w *harness.Wire) error {
			m, err := w.Metadata()
			if err != nil {
				return err
			}
			for _, topic := range m.Topics {
				names[topic.Name] = true
			}
			return nil
		}))
		if !names[side.has] || names[side.lack] {
			t.Errorf("%s lists %v", side.node.Addr(), names)
		}
	}
}

// Four nodes, started in orders that nobody would choose, find each other; the
// fourth is not needed to form the cluster.
func TestStartOrders(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{4, 3, 2, 1}, {2, 4, 1, 3}, {4, 1, 3, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			c := harness.New(t, harness.Options{Nodes: 4, Expect: 3, NoShim: true, StartOrder: order})
			var s *harness.Status
			err := harness.Eventually(patience, func() bool {
				s = status(t, c.Node(order[0]))
				alive := 0
				for _, n := range s.Nodes {
					if n.Alive {
						alive++
					}
				}
				return alive == 4 && s.ClusterID != ""
			})
			if err != nil {
				t.Errorf("not four nodes alive in a cluster: %+v", s)
			}
			create(t, c, "order", 4)
			l := harness.StartLoad("order", 4, c.Addrs(), -1)
			must(t, l.Progress(10, patience))
			verify(t, c, l)
		})
	}
}

// The last node of three starts long after the others: nothing is formed before,
// nothing is served, and it says so.
func TestWaitsForExpectedNodes(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true, NoWait: true, StartOrder: []int{1, 2}})
	for _, n := range c.Nodes[:2] {
		err := harness.Eventually(patience, func() bool {
			_, code, err := harness.Get("http://" + n.Addr() + "/healthz")
			return err == nil && code == 200
		})
		must(t, err)
	}
	for range 20 { // two seconds in which it must not become ready
		<-time.After(100 * time.Millisecond)
		if c.Node(1).Ready() == nil {
			t.Fatal("ready with two of three expected nodes")
		}
	}
	must(t, c.Node(3).Start())
	must(t, c.WaitReady(patience))
}
