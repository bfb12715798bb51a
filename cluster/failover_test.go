package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/cluster/peer"
	"github.com/trimaran-io/trimaran/fsm"
)

func TestWhoStandsForElection(t *testing.T) {
	follower := func(term, lastTerm, lastIndex uint64) standing {
		return standing{here: true, voter: true, follower: true, term: term, lastTerm: lastTerm, lastIndex: lastIndex}
	}
	led := follower(3, 3, 10)
	led.led = true
	candidate := follower(3, 3, 10)
	candidate.follower = false
	nonvoter := follower(3, 3, 99)
	nonvoter.voter = false
	even := follower(3, 3, 10)
	for name, c := range map[string]struct {
		voters []string
		known  map[string]standing
		gone   string
		self   string
		best   string // "": nobody
		wait   time.Duration
	}{
		"the leader is gone, logs are equal":             {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": even}, "a", "b", "b", 0},
		"the second waits for the first":                 {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": even}, "a", "c", "b", failoverStagger},
		"the longer log stands":                          {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": follower(3, 3, 11)}, "a", "b", "c", 0},
		"the later term stands":                          {[]string{"a", "b", "c"}, map[string]standing{"b": follower(3, 2, 99), "c": follower(3, 3, 1)}, "a", "b", "c", 0},
		"somebody knows a live leader":                   {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": led}, "a", "b", "", 0},
		"nobody answers":                                 {[]string{"a", "b", "c"}, map[string]standing{"b": even}, "a", "b", "", 0},
		"two of five are no majority":                    {[]string{"a", "b", "c", "d", "e"}, map[string]standing{"b": even, "c": even}, "a", "b", "", 0},
		"three of five, one is silent":                   {[]string{"a", "b", "c", "d", "e"}, map[string]standing{"b": even, "c": even, "d": even}, "a", "b", "b", 2 * failoverStagger},
		"a non-voter asks":                               {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": even, "d": nonvoter}, "a", "d", "", 0},
		"a voter does not know yet that it is one":       {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": nonvoter}, "a", "b", "b", 0},
		"an election may be under way":                   {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": candidate}, "a", "b", "b", 2 * failoverStagger},
		"somebody has heard of a newer term":             {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": follower(4, 3, 10)}, "a", "b", "b", 2 * failoverStagger},
		"the leader's node lives and its group does not": {[]string{"a", "b", "c"}, map[string]standing{"a": {}, "b": even, "c": even}, "", "b", "b", 0},
		"one answers and has no group":                   {[]string{"a", "b", "c"}, map[string]standing{"b": even, "c": {}}, "a", "b", "", 0},
		"a group of one":                                 {[]string{"a"}, map[string]standing{"a": even}, "", "a", "a", 0},
		"the group is not here any more":                 {[]string{"a"}, map[string]standing{"a": {}}, "", "a", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := candidacy{voters: c.voters, known: c.known}
			best, wait, ok := x.decide(c.self, func(id string) bool { return id == c.gone })
			if ok != (c.best != "") || ok && (best != c.best || wait != c.wait) {
				t.Errorf("%q after %v, %v; want %q after %v", best, wait, ok, c.best, c.wait)
			}
		})
	}
}

func TestSurveysComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var about []*candidacy
		names := make([]string, 0)
		for _, name := range rapid.SliceOfN(rapid.StringN(0, 20, 255), 0, 10).Draw(t, "names") {
			about = append(about, &candidacy{Orphan: peer.Orphan{Group: name}})
			names = append(names, name)
		}
		got, rest, err := decodeSurvey(append(encodeSurvey(about), "terms"...))
		if err != nil || string(rest) != "terms" || !reflect.DeepEqual(got, names) {
			t.Fatalf("%q, %q, %v, want %q", got, rest, err, names)
		}
		var answer []byte
		standings := make([]standing, 0)
		for range names {
			s := standing{
				rapid.Bool().Draw(t, "here"), rapid.Bool().Draw(t, "led"), rapid.Bool().Draw(t, "voter"), rapid.Bool().Draw(t, "follower"), rapid.Bool().Draw(t, "free"),
				rapid.Uint64().Draw(t, "term"), rapid.Uint64().Draw(t, "last term"), rapid.Uint64().Draw(t, "last index"),
			}
			standings = append(standings, s)
			answer = appendStanding(answer, s)
		}
		back, err := decodeStandings(answer, len(names))
		if err != nil || !reflect.DeepEqual(back, standings) {
			t.Fatalf("%+v, %v, want %+v", back, err, standings)
		}
		if _, err := decodeStandings(append(answer, 0), len(names)); err == nil {
			t.Fatal("a longer answer was taken")
		}
	})
}

func FuzzSurvey(f *testing.F) {
	f.Add(encodeSurvey([]*candidacy{{Orphan: peer.Orphan{Group: "catalog"}}}))
	f.Add([]byte{surveyLayout, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		names, rest, err := decodeSurvey(payload)
		if err == nil && len(names)+len(rest) > len(payload) {
			t.Fatalf("%d names and %d bytes of %d", len(names), len(rest), len(payload))
		}
	})
}

// TestManyGroupsElectAtOnceWhenANodeDies: by their own timers they would take half a minute.
func TestManyGroupsElectAtOnceWhenANodeDies(t *testing.T) {
	inBubble(t, testManyGroupsElectAtOnceWhenANodeDies)
}

func testManyGroupsElectAtOnceWhenANodeDies(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const partitions = 40
	topic := c.topic("many", partitions, 3)
	led := map[int]int{}
	for p := range int32(partitions) {
		led[c.leaderOf(fsm.PartitionID{Topic: topic.ID, Partition: p})]++
	}
	victim := 0
	if led[victim] == 0 {
		t.Fatalf("node 1 leads nothing: %v", led)
	}
	c.kill(victim)
	died := time.Now()
	for p := range int32(partitions) {
		c.leaderOf(fsm.PartitionID{Topic: topic.ID, Partition: p})
	}
	if took := time.Since(died); took > defaultHeartbeatTimeout/2 {
		t.Errorf("%d groups had a leader again after %v", led[victim], took)
	}
}

// TestTheLeaderThatIsRememberedMayAskForAnElection: a leader that was restarted leads no more, and the others still
// take it for theirs for some seconds. When it finds that one of them should stand, that one does; another node that
// asks for the same is not believed.
func TestTheLeaderThatIsRememberedMayAskForAnElection(t *testing.T) {
	inBubble(t, testTheLeaderThatIsRememberedMayAskForAnElection)
}

func testTheLeaderThatIsRememberedMayAskForAnElection(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("ask", 1, 3).ID}
	leader := c.leaderOf(id)
	next, other := (leader+1)%3, (leader+2)%3
	g := c.nodes[next].replica(id).group
	eventually(t, "the follower knows its leader", func() error {
		if s := c.nodes[next].standingOf(g, c.nodes[other].identity); !s.led || !s.voter {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	ask := func(from int) error {
		payload := encodeSurvey([]*candidacy{{Orphan: peer.Orphan{Group: g.name}}})
		payload = binary.BigEndian.AppendUint64(payload, g.raft.CurrentTerm())
		return c.nodes[next].failover.told(c.nodes[from].identity, append(payload, 0))
	}
	f := c.nodes[next].failover
	stood := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.resting[g.name].IsZero()
	}
	// It may have stood when the partition was new, and would rest from that.
	f.mu.Lock()
	delete(f.resting, g.name)
	f.mu.Unlock()
	if err := ask(other); err != nil || stood() {
		t.Errorf("asked by another node: %v, stood: %v", err, stood())
	}
	term := g.raft.CurrentTerm()
	if err := ask(leader); err != nil || !stood() {
		t.Errorf("asked by the leader itself: %v, stood: %v", err, stood())
	}
	// On a busy machine another one may be quicker in the end.
	eventually(t, "somebody is elected", func() error {
		if leader, now := g.leader(); now <= term || leader == "" {
			return fmt.Errorf("term %d after %d, led by %q", now, term, leader)
		}
		return nil
	})
}

// TestALonelySuspicionChangesNothing: two nodes lose sight of each other and the third sees both.
func TestALonelySuspicionChangesNothing(t *testing.T) {
	inBubble(t, testALonelySuspicionChangesNothing)
}

func testALonelySuspicionChangesNothing(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	const partitions = 12
	topic := c.topic("calm", partitions, 3)
	leaders, terms := map[int32]int{}, map[int32]uint64{}
	counts := map[int]int{}
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		leaders[p] = c.leaderOf(id)
		counts[leaders[p]]++
		_, terms[p] = c.nodes[leaders[p]].replica(id).group.leader()
	}
	a, b, third := 0, 1, 2
	if counts[a]+counts[b] == 0 {
		t.Fatalf("neither node leads anything: %v", counts)
	}
	c.net.pair(a, b, true)
	var surveys [2]uint64
	eventually(t, "both hold each other for gone", func() error {
		if !c.nodes[a].link.Gone(c.nodes[b].identity) || !c.nodes[b].link.Gone(c.nodes[a].identity) {
			return fmt.Errorf("not yet")
		}
		surveys[0], surveys[1] = c.nodes[a].failover.surveys.Load(), c.nodes[b].failover.surveys.Load()
		return nil
	})
	eventually(t, "they asked the third again and again", func() error {
		na, nb := c.nodes[a].failover.surveys.Load()-surveys[0], c.nodes[b].failover.surveys.Load()-surveys[1]
		if (counts[b] > 0 && na < 8) || (counts[a] > 0 && nb < 8) {
			return fmt.Errorf("%d and %d surveys", na, nb)
		}
		return nil
	})
	ctx := within(t)
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		if _, err := c.nodes[third].Append(ctx, id, [][]byte{batchOf("still")}); err != nil {
			t.Errorf("partition %d: %v", p, err)
		}
		r := c.nodes[leaders[p]].replica(id)
		if _, term := r.group.leader(); term != terms[p] || r.group.raft.State() != raft.Leader {
			t.Errorf("partition %d is in term %d, was in %d", p, term, terms[p])
		}
	}
	c.net.pair(a, b, false)
	eventually(t, "they see each other again", func() error {
		if c.nodes[a].link.Gone(c.nodes[b].identity) || c.nodes[b].link.Gone(c.nodes[a].identity) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for p := range int32(partitions) {
		id := fsm.PartitionID{Topic: topic.ID, Partition: p}
		if _, term := c.nodes[leaders[p]].replica(id).group.leader(); term != terms[p] {
			t.Errorf("partition %d is in term %d after the cut, was in %d", p, term, terms[p])
		}
	}
}

// TestAGroupThatEndedOnALiveNodeIsLedByAnother: nothing is wrong with the node, so it is not held for gone.
func TestAGroupThatEndedOnALiveNodeIsLedByAnother(t *testing.T) {
	inBubble(t, testAGroupThatEndedOnALiveNodeIsLedByAnother)
}

func testAGroupThatEndedOnALiveNodeIsLedByAnother(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	topic := c.topic("one", 1, 3)
	id := fsm.PartitionID{Topic: topic.ID}
	first := c.leaderOf(id)
	g := c.nodes[first].replica(id).group
	if err := g.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	other := c.nodes[(first+1)%3]
	eventually(t, "records are taken again", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := other.Append(ctx, id, [][]byte{batchOf("on")})
		return err
	})
	if took := time.Since(ended); took > defaultHeartbeatTimeout {
		t.Errorf("another led after %v", took)
	}
}
