package placement

import (
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
)

// Placed is a partition as it stands.
type Placed struct {
	Replicas []fsm.NodeID // the preferred leader first
	// Fixed partitions count and are not moved: they are on the move already.
	Fixed bool
}

// Move takes a partition, by its place in the list that was given, from one node to another,
// which takes its place in Replicas.
type Move struct {
	Partition int
	From, To  fsm.NodeID
}

// Balance gives at most limit moves that even out how many replicas nodes hold, to within one of
// each other as far as zones allow: a partition's replicas never stand in fewer zones than before.
// The same input gives the same moves, and after them Balance gives the next ones. Partitions that
// may not move, and replicas on nodes that are not given, stay where they are.
func Balance(nodes []Node, partitions []Placed, limit int) (moves []Move) {
	b := newBalance(nodes, partitions)
	for len(moves) < limit {
		move, ok := b.next()
		if !ok {
			break
		}
		b.make(move)
		moves = append(moves, move)
	}
	return moves
}

// Target gives the node that should take the place of one in a partition: of those that hold no
// replica of it, one in a zone that the others do not have, then the one with the fewest replicas,
// then the first by name. ok is false if all hold one.
func Target(nodes []Node, replicas []fsm.NodeID, instead fsm.NodeID) (target fsm.NodeID, ok bool) {
	zone := map[fsm.NodeID]string{}
	for _, n := range nodes {
		zone[n.ID] = n.Zone
	}
	used := map[string]bool{}
	for _, id := range replicas {
		if z, known := zone[id]; known && id != instead {
			used[z] = true
		}
	}
	var best *Node
	better := func(a, b *Node) bool {
		if used[a.Zone] != used[b.Zone] {
			return !used[a.Zone]
		}
		if a.Replicas != b.Replicas {
			return a.Replicas < b.Replicas
		}
		return a.ID < b.ID
	}
	for i := range nodes {
		n := &nodes[i]
		if !slices.Contains(replicas, n.ID) && (best == nil || better(n, best)) {
			best = n
		}
	}
	if best == nil {
		return "", false
	}
	return best.ID, true
}

type balance struct {
	nodes      []Node // by id; Replicas and Leaders are counted here
	zone       map[fsm.NodeID]string
	partitions []Placed
}

func newBalance(nodes []Node, partitions []Placed) *balance {
	b := &balance{nodes: slices.Clone(nodes), zone: map[fsm.NodeID]string{}}
	slices.SortFunc(b.nodes, func(a, c Node) int {
		if a.ID < c.ID {
			return -1
		}
		return 1
	})
	at := map[fsm.NodeID]int{}
	for i := range b.nodes {
		b.nodes[i].Replicas, b.nodes[i].Leaders = 0, 0
		at[b.nodes[i].ID], b.zone[b.nodes[i].ID] = i, b.nodes[i].Zone
	}
	for _, p := range partitions {
		b.partitions = append(b.partitions, Placed{Replicas: slices.Clone(p.Replicas), Fixed: p.Fixed})
		for i, id := range p.Replicas {
			if k, ok := at[id]; ok {
				b.nodes[k].Replicas++
				if i == 0 {
					b.nodes[k].Leaders++
				}
			}
		}
	}
	return b
}

// next gives the move from the fullest node to the emptiest that is possible; nodes that differ by
// one are even.
func (b *balance) next() (Move, bool) {
	full := make([]int, len(b.nodes))
	for i := range full {
		full[i] = i
	}
	slices.SortStableFunc(full, func(x, y int) int { return b.nodes[y].Replicas - b.nodes[x].Replicas })
	for _, from := range full {
		for i := len(full) - 1; i >= 0; i-- {
			to := full[i]
			if b.nodes[from].Replicas-b.nodes[to].Replicas < 2 {
				break
			}
			if move, ok := b.between(&b.nodes[from], &b.nodes[to]); ok {
				return move, true
			}
		}
	}
	return Move{}, false
}

// between finds a partition to move: one that the giver leads if it leads too much as well, else
// one that it does not.
func (b *balance) between(from, to *Node) (Move, bool) {
	leader := from.Leaders-to.Leaders >= 2
	found := -1
	for i, p := range b.partitions {
		k := slices.Index(p.Replicas, from.ID)
		if k < 0 || p.Fixed || slices.Contains(p.Replicas, to.ID) || !b.zonesKept(p.Replicas, from.ID, to.ID) {
			continue
		}
		if (k == 0) == leader {
			found = i
			break
		}
		if found < 0 {
			found = i
		}
	}
	return Move{found, from.ID, to.ID}, found >= 0
}

// zonesKept says whether the replicas stand in as many zones after the move.
func (b *balance) zonesKept(replicas []fsm.NodeID, from, to fsm.NodeID) bool {
	before, after := map[string]bool{}, map[string]bool{b.zone[to]: true}
	for _, id := range replicas {
		before[b.zone[id]] = true
		if id != from {
			after[b.zone[id]] = true
		}
	}
	return len(after) >= len(before)
}

func (b *balance) make(m Move) {
	p := b.partitions[m.Partition]
	k := slices.Index(p.Replicas, m.From)
	p.Replicas[k] = m.To
	for i := range b.nodes {
		by := 0
		switch b.nodes[i].ID {
		case m.From:
			by = -1
		case m.To:
			by = 1
		}
		b.nodes[i].Replicas += by
		if k == 0 {
			b.nodes[i].Leaders += by
		}
	}
}
