package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// TestScripts runs testdata/scripts, each with a cluster of its own, in virtual time. In place of a
// node's name may stand a word that `leader` or `follower` gave one: which node that is differs
// from run to run.
//
//	nodes n1 n2 n3           nodes that form a cluster when they are started
//	start N...               starts them, and waits for nothing
//	join N                   a node that was not there at first is started
//	ready [N...]             waits until these, or all that run, are ready
//	kill N..., power N...    the process ends; its disk loses what was not synced, too
//	stop N...                ends in good order
//	wait 10s                 of virtual time
//	cut A B, cut A B one-way no bytes from A to B, and from B to A unless one-way
//	isolate N, heal          cut off from all; everything is whole again
//	full N, freed N          the disk has no room; it has again
//	topic T [partitions=1] [replicas=3]
//	append T [count=10] [through=N]   records 0, 1, 2... of the topic, one by one
//	read T [through=N]       all of it, and are those the records that were appended?
//	delete T before=7        old records
//	leader T as=W            waits until one leads, and names it W; W leads still: it is the same
//	follower T as=W          one that runs and does not lead
//	hand-over T              the leader gives its office away
//	damage N T               one bit of what the node's replica keeps flips
//	lose N T                 the files of the node's replica are gone
//	wipe N                   all of a stopped node's disk is gone
//	decommission N, drain N, replace N
//	gone N                   waits until the node has left and its process has ended
//	holders T replicas=3     waits until the topic has so many replicas, all voting, none leaving
//	equal T                  waits until all replicas are there and compares them
//	status                   of each node
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/scripts/*")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		runInBubble(t, filepath.Base(path), func(t *testing.T) {
			s := &script{t: t, words: map[string]int{}, sent: map[string]int{}, below: map[string]fsm.Offset{}}
			datadriven.RunTest(t, path, s.do)
		})
	}
}

type script struct {
	*testCluster
	t     *testing.T
	words map[string]int
	sent  map[string]int        // how many records of a topic were acknowledged
	below map[string]fsm.Offset // what was deleted of a topic
}

// do runs one command.
func (s *script) do(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	s.t = t
	if s.testCluster != nil {
		s.testCluster.t = t
	}
	var args []string
	for _, arg := range d.CmdArgs {
		if len(arg.Vals) == 0 {
			args = append(args, arg.Key)
		}
	}
	switch d.Cmd {
	case "nodes":
		s.testCluster = newTestCluster(t, len(args))
		small(s.testCluster, map[string]string{"segment.bytes": "20000"})
		for i, name := range args {
			s.words[name] = i
		}
		return ""
	case "wait":
		long, err := time.ParseDuration(args[0])
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		time.Sleep(long)
		return ""
	case "join":
		i := s.add(0)
		s.words[args[0]] = i
		s.nodes[i].cfg.TopicDefaults, s.nodes[i].cfg.RetentionInterval = s.nodes[0].cfg.TopicDefaults, s.nodes[0].cfg.RetentionInterval
		s.start(i)
		return ""
	case "topic", "append", "read", "delete", "leader", "follower", "hand-over", "holders", "equal":
		return s.topics(d, args[0])
	case "cut":
		if from, to := s.net.name(s.node(d, args[0])), s.net.name(s.node(d, args[1])); len(args) > 2 {
			s.net.under.CutOneWay(from, to)
		} else {
			s.net.under.Cut(from, to)
		}
		return ""
	case "heal":
		s.net.under.HealAll()
		for i, n := range s.nodes {
			s.net.lives(i, n.running)
		}
		return ""
	case "damage", "lose":
		return s.spoil(d, s.node(d, args[0]), args[1])
	case "status":
		return s.status()
	}
	if len(args) == 0 {
		for i, n := range s.nodes {
			if n.running {
				args = append(args, s.net.name(i))
			}
		}
	}
	var out strings.Builder
	for _, arg := range args {
		out.WriteString(s.one(d, s.node(d, arg)))
	}
	return out.String()
}

func (c *cuttable) name(node int) string { return fmt.Sprint("n", node+1) }

// node gives the node that a word means.
func (s *script) node(d *datadriven.TestData, word string) int {
	i, ok := s.words[word]
	if !ok {
		d.Fatalf(s.t, "nobody is called %s", word)
	}
	return i
}

// one does to one node what the command says.
func (s *script) one(d *datadriven.TestData, i int) string {
	node := s.nodes[i]
	name := node.cfg.NodeID
	switch d.Cmd {
	case "start":
		s.start(i)
	case "ready":
		if err := node.WaitReady(within(s.t)); err != nil {
			return fmt.Sprintf("%s: %v\n", name, err)
		}
	case "kill", "power":
		s.crash(i, d.Cmd == "power")
	case "stop":
		node.running = false
		if err := node.Shutdown(within(s.t)); err != nil {
			return fmt.Sprintf("%s: %v\n", name, err)
		}
		node.disk.dead(false)
	case "isolate":
		for other := range s.nodes {
			if other != i {
				s.net.under.Cut(s.net.name(i), s.net.name(other))
			}
		}
	case "full", "freed":
		node.disk.full.Store(d.Cmd == "full")
	case "wipe":
		node.disk = newMemDisk(99)
	case "decommission", "drain", "replace":
		s.administer(s.other(i), admin.Request{Op: admin.Op(d.Cmd), Node: name})
	case "gone":
		s.ends(i)
		return fmt.Sprintf("%s has left\n", name)
	default:
		d.Fatalf(s.t, "no such command")
	}
	return ""
}

// other gives a node that runs, not i if that can be.
func (s *script) other(i int) int {
	for j, n := range s.nodes {
		if j != i && n.running {
			return j
		}
	}
	return i
}

// status tells of each node.
func (s *script) status() string {
	var out strings.Builder
	for _, n := range s.nodes {
		state := "away"
		switch {
		case !n.running:
		case n.Err() != nil:
			state = "failed: " + n.Err().Error()
		case n.Ready() != nil:
			state = "not ready"
		default:
			state = "ready"
		}
		fmt.Fprintf(&out, "%s: %s\n", n.cfg.NodeID, state)
	}
	return out.String()
}

// topics runs the commands whose first word is a topic.
func (s *script) topics(d *datadriven.TestData, name string) string {
	number := func(key string, otherwise int) int {
		d.MaybeScanArgs(s.t, key, &otherwise)
		return otherwise
	}
	through := s.other(-1)
	var word string
	if d.HasArg("through") {
		d.ScanArgs(s.t, "through", &word)
		through = s.node(d, word)
	}
	if d.Cmd == "topic" {
		s.topic(name, int32(number("partitions", 1)), int16(number("replicas", 3)))
		return ""
	}
	topic, ok := s.nodes[through].Topics().Lookup(name)
	if !ok {
		return "unknown topic"
	}
	id := fsm.PartitionID{Topic: topic.ID}
	switch d.Cmd {
	case "append":
		return s.appends(name, id, through, number("count", 10))
	case "read":
		return s.reads(name, id, through)
	case "delete":
		start, err := s.nodes[through].DeleteRecords(within(s.t), id, fsm.Offset(number("before", 0)))
		if err != nil {
			return "refused: " + err.Error()
		}
		s.below[name] = start
		return fmt.Sprintf("begins at %d", start)
	case "leader", "follower":
		return s.role(d, id)
	case "hand-over":
		leader := s.leaderOf(id)
		eventually(s.t, "it is handed over", func() error { return s.nodes[leader].handOver(s.nodes[leader].replica(id).Member) })
		return ""
	case "holders":
		p, _ := s.nodes[through].Topics().Partition(id)
		eventually(s.t, "replicas", func() (err error) {
			if p, _ = s.nodes[through].Topics().Partition(id); len(p.Replicas) != number("replicas", 3) || len(p.Leaving) > 0 {
				return fmt.Errorf("%v, leaving %v", p.Replicas, p.Leaving)
			}
			return nil
		})
		s.replicasAre(id, through, slices.Clone(p.Replicas)...)
		return fmt.Sprintf("%d replicas", len(p.Replicas))
	}
	return s.equal(id, through)
}

// appends appends one record after the other. It stops at one that is not acknowledged:
// whether it was refused or nobody knows differs from run to run.
func (s *script) appends(name string, id fsm.PartitionID, through, count int) string {
	first := s.sent[name]
	for range count {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		appended, err := s.nodes[through].Append(ctx, id, batchList{prototest.Batch(fmt.Sprintf("%s-%d-%0500d", name, s.sent[name], 0))})
		cancel()
		if err != nil {
			return fmt.Sprintf("not acknowledged after %d", s.sent[name]-first)
		}
		if int(appended[0].BaseOffset) != s.sent[name] {
			return fmt.Sprintf("record %d has offset %d", s.sent[name], appended[0].BaseOffset)
		}
		s.sent[name]++
	}
	return fmt.Sprintf("offsets %d to %d", first, s.sent[name]-1)
}

// reads reads what a topic has, through a node.
func (s *script) reads(name string, id fsm.PartitionID, through int) (out string) {
	eventually(s.t, "a read to the end", func() error {
		start := s.below[name]
		values, err := valuesBehind(within(s.t), s.nodes[through].Node, id, start)
		if err != nil {
			return err
		}
		for i, value := range values {
			if want := fmt.Sprintf("%s-%d-", name, int(start)+i); !strings.HasPrefix(value, want) {
				out = fmt.Sprintf("at offset %d is %.20q", int(start)+i, value)
				return nil
			}
		}
		out = fmt.Sprintf("offsets %d to %d", start, int(start)+len(values)-1)
		if int(start)+len(values) < s.sent[name] {
			return errors.New(out)
		}
		return nil
	})
	return out
}

// role names the leader, or a follower.
func (s *script) role(d *datadriven.TestData, id fsm.PartitionID) string {
	var word string
	d.ScanArgs(s.t, "as", &word)
	is := s.leaderOf(id)
	does := "leads"
	if d.Cmd == "follower" {
		does = "follows"
		for i, n := range s.nodes {
			if n.running && i != is && n.replica(id) != nil && !s.named(i) {
				is = i
				break
			}
		}
	}
	for other, i := range s.words {
		if i == is && !strings.HasPrefix(other, "n") {
			return fmt.Sprintf("%s %s still", other, does)
		}
	}
	s.words[word] = is
	return fmt.Sprintf("%s %s", word, does)
}

func (s *script) named(i int) bool {
	for word, named := range s.words {
		if named == i && !strings.HasPrefix(word, "n") {
			return true
		}
	}
	return false
}

// equal compares all replicas.
func (s *script) equal(id fsm.PartitionID, through int) (out string) {
	eventually(s.t, "replicas are whole and equal", func() error {
		for from := fsm.Offset(-1); ; {
			c, err := s.nodes[through].CheckReplicas(within(s.t), id, from)
			if err != nil {
				return err
			}
			if c.DiffersAt != -1 {
				s.t.Fatalf("%+v", c)
			}
			if err := whole(c); err != nil {
				return err
			}
			if c.To >= c.End {
				out = fmt.Sprintf("%d replicas are equal", len(c.Replicas))
				return nil
			}
			from = c.To
		}
	})
	return out
}

// spoil damages or removes what a node's replica keeps.
func (s *script) spoil(d *datadriven.TestData, i int, name string) string {
	topic, ok := s.nodes[s.other(-1)].Topics().Lookup(name)
	if !ok {
		return "unknown topic"
	}
	dir := s.nodes[i].partitionDir(fsm.PartitionID{Topic: topic.ID})
	if d.Cmd == "lose" {
		if err := s.nodes[i].disk.files().RemoveAll(dir); err != nil {
			s.t.Fatal(err)
		}
		return ""
	}
	if s.nodes[i].disk.damage(s.t, filepath.Dir(dir), rand.New(rand.NewPCG(1, 1))) == "" {
		return "there is not enough"
	}
	return ""
}
