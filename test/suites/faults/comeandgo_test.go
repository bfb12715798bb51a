package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Three nodes become five, one of the first three is decommissioned while another one
// is killed, one more is lost with its disk and replaced by a new one. Producers and a
// consumer group's offsets come through all of it, and in the end the nodes that went
// hold nothing and everything has three replicas.
func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{})
	story := &comeAndGo{t: t, c: c, began: time.Now(), away: map[*harness.Node]bool{}}
	create(t, c, "tour", 4)
	harness.StartWitness(t, c)
	create(t, c, "tour-shim", 3)
	// n3 is there from the beginning to the end.
	direct := harness.StartLoad("tour", 4, c.Addrs(), -1)
	defer direct.Stop()
	behind := harness.StartLoad("tour-shim", 3, []string{c.ShimAddr()}, -1)
	defer behind.Stop()
	loads := []*harness.Load{direct, behind}
	served := func() {
		t.Helper()
		for _, l := range loads {
			must(t, l.Progress(30, patience))
		}
	}
	served()
	commitOffset(t, c.ShimAddr(), "tourists", "tour", 0, 17)

	story.tell("n4 and n5 join")
	for range 2 {
		n, err := c.AddNode()
		must(t, err)
		must(t, n.Start())
		must(t, n.WaitReady(patience))
	}
	story.until("n4 and n5 hold replicas, and nothing is on the move", func(s *harness.Status) bool {
		return held(s, "n4") >= 3 && held(s, "n5") >= 3 && settled(s)
	})
	// Through the new ones, too.
	create(t, c, "tour-new", 3)
	loads = append(loads, harness.StartLoad("tour-new", 3, []string{c.Node(4).Addr(), c.Node(5).Addr()}, -1))
	defer loads[2].Stop()
	served()

	story.tell("n1 is decommissioned, and n4 killed meanwhile")
	trimaran(t, story.addrs(), "node", "decommission", "n1")
	story.until("a replica of n1 is on its way", func(s *harness.Status) bool {
		return slices.ContainsFunc(everyPartition(s), func(p harness.PartitionStatus) bool {
			for _, r := range p.Replicas {
				if r.Node == "n1" && r.Leaving {
					return true
				}
			}
			return false
		})
	})
	must(t, c.Node(4).Kill9())
	served()
	must(t, c.Node(4).Start())
	story.leaves("n1")
	code, err := c.Node(1).Wait(patience)
	must(t, err)
	if code != 0 {
		t.Errorf("n1 ends with %d when it has left", code)
	}
	served()
	// It cannot come back with the data that it had.
	refuses(t, c.Node(1), c.Node(1).Start, "has left the cluster")
	if code, err := c.Node(1).Wait(patience); err != nil || code != hasLeftCode {
		t.Errorf("n1, started again, ends with %d, %v", code, err)
	}

	story.tell("n2 is killed and its disk is gone; n6 takes its place")
	must(t, c.Node(2).Kill9())
	must(t, os.RemoveAll(c.Node(2).Data))
	story.away[c.Node(2)] = true
	served()
	n6, err := c.AddNode()
	must(t, err)
	must(t, n6.Start())
	must(t, n6.WaitReady(patience))
	trimaran(t, story.addrs(), "node", "replace", "n2", "n6")
	story.leaves("n2")
	served()

	story.tell("everything has three replicas on n3 to n6")
	story.until("all have three replicas that follow, and no others", threeOfEach)
	var s harness.Status
	must(t, json.Unmarshal([]byte(trimaran(t, story.addrs(), "cluster", "status", "--json")), &s))
	for _, tp := range s.Topics {
		if tp.ReplicationFactor != 3 {
			t.Errorf("topic %s has replication factor %d", tp.Name, tp.ReplicationFactor)
		}
	}
	if len(s.GroupShards) == 0 {
		t.Error("there are no shards of consumer groups")
	}
	if got := committed(t, c.ShimAddr(), "tourists", "tour", 0); got != 17 {
		t.Errorf("the group's offset is %d, was 17", got)
	}
	for _, l := range loads {
		if err := l.Stop(); err != nil {
			t.Errorf("an acknowledgement that cannot be: %v", err)
		}
		t.Log(l)
		for _, addr := range append(story.addrs(), c.ShimAddr()) {
			if err := l.Verify(addr, patience); err != nil {
				t.Error(err)
			}
		}
	}
	for _, topic := range []string{"tour", "tour-shim", "tour-new"} {
		waitNoLag(t, c, topic)
		replicasAgree(t, story.addrs(), topic)
	}
	story.tell("done")
}

// comeAndGo asks the nodes that are there how far things are.
type comeAndGo struct {
	t     *testing.T
	c     *harness.Cluster
	began time.Time
	away  map[*harness.Node]bool // for good
}

func (g *comeAndGo) tell(what string) {
	g.t.Logf("%s %6.2f s: %s", time.Now().Format("15:04:05.000"), time.Since(g.began).Seconds(), what)
}

// addrs gives the client addresses of the nodes that belong to the cluster and run.
func (g *comeAndGo) addrs() (out []string) {
	for _, n := range g.c.Nodes {
		if n.Running() && !g.away[n] {
			out = append(out, n.Addr())
		}
	}
	return out
}

// until waits for something to be seen in the status.
func (g *comeAndGo) until(what string, holds func(*harness.Status) bool) {
	g.t.Helper()
	last := ""
	err := harness.Eventually(patience, func() bool {
		out, err := tryTrimaran(g.addrs(), "cluster", "status", "--json")
		if err != nil {
			last = err.Error()
			return false
		}
		last = out
		s := new(harness.Status)
		if err := json.Unmarshal([]byte(out), s); err != nil {
			last = fmt.Sprint(err, ": ", out)
			return false
		}
		return holds(s)
	})
	if err != nil {
		g.t.Fatalf("%s: %v; the last status:\n%s", what, err, last)
	}
	g.tell("  " + what)
}

// leaves waits until a node is in the cluster no more, and holds nothing.
func (g *comeAndGo) leaves(id string) {
	g.t.Helper()
	g.away[g.c.NodeByID(id)] = true
	g.until(id+" has left and holds nothing", func(s *harness.Status) bool { return hasLeft(s, id) })
}

// left says whether a node has left, as far as anybody can tell now.
func (g *comeAndGo) left(id string) bool {
	out, err := tryTrimaran(g.addrs(), "cluster", "status", "--json")
	s := new(harness.Status)
	return err == nil && json.Unmarshal([]byte(out), s) == nil && hasLeft(s, id)
}

func hasLeft(s *harness.Status, id string) bool {
	for _, n := range s.Nodes {
		if n.ID == id {
			return false
		}
	}
	votes := slices.ContainsFunc(s.CatalogVoters, func(v string) bool { return strings.HasPrefix(v, id+".") })
	// A program that knows no more than level 2 does not tell who votes.
	return held(s, id) == 0 && (len(s.CatalogVoters) > 0 || s.FeatureLevel < 3) && !votes
}

func everyPartition(s *harness.Status) []harness.PartitionStatus {
	all := slices.Clone(s.GroupShards)
	for _, tp := range s.Topics {
		all = append(all, tp.Partitions...)
	}
	return all
}

// held counts the replicas that a node has, of topics and of shards.
func held(s *harness.Status, node string) (n int) {
	for _, p := range everyPartition(s) {
		for _, r := range p.Replicas {
			if r.Node == node {
				n++
			}
		}
	}
	return n
}

// settled: every replica runs and none is on the move.
func settled(s *harness.Status) bool {
	for _, p := range everyPartition(s) {
		for _, r := range p.Replicas {
			if r.Leaving || r.Role != "leader" && r.Role != "follower" {
				return false
			}
		}
	}
	return len(s.Topics) > 0
}

// commitOffset commits for a group without members, as tools do.
func commitOffset(t *testing.T, addr, group, topic string, partition int32, offset int64) {
	t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset = partition, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	asGroup(t, addr, func(cl *kgo.Client) error {
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			return err
		}
		if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
			return harness.ErrorCode(code)
		}
		return nil
	})
}

// committed gives the offset that a group has committed.
func committed(t *testing.T, addr, group, topic string, partition int32) (offset int64) {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	rt := kmsg.NewOffsetFetchRequestTopic()
	rt.Topic, rt.Partitions = topic, []int32{partition}
	req.Topics = append(req.Topics, rt)
	asGroup(t, addr, func(cl *kgo.Client) error {
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			return err
		}
		p := resp.Topics[0].Partitions[0]
		if offset = p.Offset; p.ErrorCode != 0 {
			return harness.ErrorCode(p.ErrorCode)
		}
		return nil
	})
	return offset
}

// asGroup asks a coordinator until it answers without an error.
func asGroup(t *testing.T, addr string, ask func(*kgo.Client) error) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MaxVersions(kversion.V2_0_0()))
	must(t, err)
	defer cl.Close()
	err = harness.Eventually(patience, func() bool { err = ask(cl); return err == nil })
	if err != nil {
		t.Fatal(err)
	}
}
