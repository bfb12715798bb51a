package liveness

import (
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/membership"
)

// network is who is reached; others are not heard of.
type network map[string]Way

func (w network) nodes(members ...membership.Member) *Nodes {
	return New(Config{
		Self:      "n1",
		Connected: func(identity string) bool { return w[identity] == Reached },
		Way:       func(identity string) Way { return w[identity] },
		Members:   func() []membership.Member { return members },
	})
}

func voters(ids ...string) (servers []raft.Server) {
	for _, id := range ids {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter})
	}
	return servers
}

// TestNoStepLeavesAGroupWithoutAMajority of voters that are there.
func TestNoStepLeavesAGroupWithoutAMajority(t *testing.T) {
	n := network{"n2": Reached, "n3": Reached}.nodes()
	for _, test := range []struct {
		voters    []raft.Server
		with, out string
		may       bool
	}{
		{voters("n1", "n2", "n4"), "n3", "", true},
		{voters("n1", "n4"), "n2", "", true},
		{voters("n1", "n2", "n3"), "n4", "", false}, // it is not there
		{voters("n1", "n2", "n4"), "", "n4", true},
		{voters("n1", "n2", "n4"), "", "n2", false},
		{voters("n1", "n4"), "", "n4", true},
		{append(voters("n1", "n4"), raft.Server{ID: "n2", Suffrage: raft.Nonvoter}), "", "n5", false},
	} {
		may := n.MajorityWithout(test.voters, test.out)
		if test.with != "" {
			may = n.MajorityWith(test.voters, test.with)
		}
		if may != test.may {
			t.Errorf("%v with %q, without %q: %v", test.voters, test.with, test.out, may)
		}
	}
	if n.MajorityHere(voters("n1", "n4")) || !n.MajorityHere(voters("n1", "n2", "n4")) {
		t.Error("a majority is miscounted")
	}
}

// TestWhoIsCutOffSaysWhetherOthersServe: nobody does at addresses that refuse connections.
func TestWhoIsCutOffSaysWhetherOthersServe(t *testing.T) {
	for _, test := range []struct {
		net       network
		elsewhere bool
		cut       bool
	}{
		{network{"n2": Reached}, false, false},
		{network{}, true, true},
		{network{"n2": Refused, "n3": Refused}, false, true},
		{network{"n2": Refused}, false, true},
	} {
		elsewhere, err := test.net.nodes().CutOff([]string{"n1", "n2", "n3"})
		if elsewhere != test.elsewhere || (err != nil) != test.cut {
			t.Errorf("%v: %v, %v", test.net, elsewhere, err)
		}
	}
}

// TestAMemberIsSevered from a leader only where some are reached and others not heard of.
func TestAMemberIsSevered(t *testing.T) {
	members := []string{"n1", "n2", "n3"}
	for _, test := range []struct {
		net     network
		leader  string
		severed bool
	}{
		{network{"n2": Reached}, "n3", true},
		{network{"n2": Reached}, "", true},
		{network{"n2": Reached}, "n2", false},
		{network{"n2": Reached}, "n1", false},
		{network{"n2": Reached, "n3": Refused}, "", false},
		{network{"n2": Reached, "n3": Reached}, "", false},
		{network{}, "n3", false}, // nobody could tell
	} {
		if got := test.net.nodes().Severed(test.leader, members); got != test.severed {
			t.Errorf("%v, leader %q: %v", test.net, test.leader, got)
		}
	}
}

// TestAnAddressIsRemembered when gossip does not know the node any more.
func TestAnAddressIsRemembered(t *testing.T) {
	known := []membership.Member{{Identity: "n2", PeerAddr: "a:1"}}
	n := New(Config{Self: "n1", Members: func() []membership.Member { return known }})
	if addr, ok := n.Resolve("n2"); !ok || addr != "a:1" {
		t.Errorf("%q, %v", addr, ok)
	}
	known = nil
	if addr, ok := n.Resolve("n2"); !ok || addr != "a:1" {
		t.Errorf("when gossip is silent: %q, %v", addr, ok)
	}
	// Gossip says where a node is until it was reached, and moves it nowhere then.
	known = []membership.Member{{Identity: "n2", PeerAddr: "b:1"}}
	if addr, _ := n.Resolve("n2"); addr != "b:1" {
		t.Errorf("before it was reached: %q", addr)
	}
	n.ReachedAt("n2", "b:1")
	known = []membership.Member{{Identity: "n2", PeerAddr: "evil:1"}}
	if addr, _ := n.Resolve("n2"); addr != "b:1" {
		t.Errorf("gossip moved it to %q", addr)
	}
	n.ReachedAt("n2", "c:1")
	if addr, _ := n.Resolve("n2"); addr != "c:1" {
		t.Errorf("it was reached at c:1 and is looked for at %q", addr)
	}
	if _, ok := n.Resolve("n3"); ok {
		t.Error("one that nobody has met has an address")
	}
}
