// Package placement decides which nodes hold the replicas of new partitions.
//
// You are here: beside package cluster, which tells it the nodes and their load
// and writes its answer into the catalog. Everything here is a pure function:
// the same nodes, load and seed give the same answer, whatever order the nodes
// come in. Which nodes are alive, and moving replicas that exist, is not decided
// here.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// Node is a node that may take replicas, with the load it has now.
type Node struct {
	ID       fsm.NodeID
	Zone     string // "" is a zone like any other
	Replicas int    // replicas placed on it
	Leaders  int    // partitions whose preferred leader it is
}

// Assign places partitions with rf replicas each and gives, per partition, its
// nodes, the preferred leader first. Replicas of a partition stand on different
// nodes and, as far as there are, in different zones. Within that, zones and
// nodes get even numbers of replicas, and nodes even numbers of leaders, counting
// what they have already: if nodes start even and zones are of one size, numbers
// differ by one at most. seed decides between equals, so that different topics
// do not crowd the same nodes.
//
// The error is outcome.ErrInvalidPartitions or outcome.ErrInvalidReplicationFactor.
func Assign(nodes []Node, partitions int32, rf int, seed uint64) ([][]fsm.NodeID, error) {
	if partitions < 1 || partitions > fsm.MaxPartitions {
		return nil, fmt.Errorf("%w: %d, want 1 to %d", outcome.ErrInvalidPartitions, partitions, fsm.MaxPartitions)
	}
	if rf < 1 || rf > len(nodes) {
		return nil, fmt.Errorf("%w: %d, with %d nodes to place on", outcome.ErrInvalidReplicationFactor, rf, len(nodes))
	}
	b, err := newBoard(nodes)
	if err != nil {
		return nil, err
	}
	placed := make([][]int, partitions)
	for p := range placed {
		placed[p] = b.placeReplicas(rf, mix(seed+uint64(p)))
		b.chooseLeader(placed[p])
	}
	b.evenLeaders(placed)
	assignment := make([][]fsm.NodeID, partitions)
	for p, replicas := range placed {
		assignment[p] = make([]fsm.NodeID, rf)
		for i, n := range replicas {
			assignment[p][i] = b.nodes[n].ID
		}
	}
	return assignment, nil
}

// board is the load while partitions are placed. Nodes and zones are named by
// their numbers.
type board struct {
	nodes  []Node // sorted by id
	hashes []uint64
	zoneOf []int // per node
	zones  []zone
}

type zone struct {
	name     string
	nodes    int // how many stand in it
	replicas int // that they hold
	used     int // by the partition that is being placed
	hash     uint64
}

func newBoard(nodes []Node) (*board, error) {
	b := &board{nodes: slices.Clone(nodes)}
	slices.SortFunc(b.nodes, func(x, y Node) int { return strings.Compare(string(x.ID), string(y.ID)) })
	zones := map[string]int{}
	for i, n := range b.nodes {
		if i > 0 && b.nodes[i-1].ID == n.ID {
			return nil, fmt.Errorf("%w: node %q is given twice", outcome.ErrInvalidAssignment, n.ID)
		}
		z, ok := zones[n.Zone]
		if !ok {
			z = len(b.zones)
			zones[n.Zone] = z
			b.zones = append(b.zones, zone{name: n.Zone, hash: hash(n.Zone)})
		}
		b.zoneOf = append(b.zoneOf, z)
		b.hashes = append(b.hashes, hash(string(n.ID)))
		b.zones[z].nodes++
		b.zones[z].replicas += n.Replicas
	}
	return b, nil
}

// placeReplicas chooses rf nodes for one partition: the zone that it uses least
// first, then the zone with the fewest replicas per node, then the node with the
// fewest, then chance.
func (b *board) placeReplicas(rf int, chance uint64) []int {
	for z := range b.zones {
		b.zones[z].used = 0
	}
	var chosen []int
	for range rf {
		best := -1
		for n := range b.nodes {
			if !slices.Contains(chosen, n) && (best < 0 || b.better(n, best, chance)) {
				best = n
			}
		}
		chosen = append(chosen, best)
		b.nodes[best].Replicas++
		b.zones[b.zoneOf[best]].replicas++
		b.zones[b.zoneOf[best]].used++
	}
	return chosen
}

func (b *board) better(n, m int, chance uint64) bool {
	if y, z := b.zoneOf[n], b.zoneOf[m]; y != z {
		zy, zz := &b.zones[y], &b.zones[z]
		if c := cmp.Or(
			cmp.Compare(zy.used, zz.used),
			// replicas per node, without dividing
			cmp.Compare(zy.replicas*zz.nodes, zz.replicas*zy.nodes),
			cmp.Compare(mix(zy.hash^chance), mix(zz.hash^chance)),
		); c != 0 {
			return c < 0
		}
	}
	return cmp.Or(
		cmp.Compare(b.nodes[n].Replicas, b.nodes[m].Replicas),
		cmp.Compare(mix(b.hashes[n]^chance), mix(b.hashes[m]^chance)),
		cmp.Compare(n, m),
	) < 0
}

// chooseLeader puts the replica with the fewest leaders first.
func (b *board) chooseLeader(replicas []int) {
	best := 0
	for i, n := range replicas {
		if b.nodes[n].Leaders < b.nodes[replicas[best]].Leaders {
			best = i
		}
	}
	replicas[0], replicas[best] = replicas[best], replicas[0]
	b.nodes[replicas[0]].Leaders++
}

// hash is FNV-1a: what it gives must never change, or nodes of different
// versions would place differently.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix is the finalizer of SplitMix64: every bit of x moves every bit of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
