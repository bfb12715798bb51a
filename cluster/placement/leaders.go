package placement

import "slices"

// evenLeaders moves preferred leadership between replicas that are placed until
// no node can be relieved in favour of one that has at least two less.
//
// Where the first replica is not free to choose, one move is not always enough:
// a may be unable to give to c, but able to give to b, and b to c. So a path is
// looked for, as in a flow network, whose edges are the partitions that could
// change their leader. If replicas are even within one, such a flow exists with
// leaders even within one: let every replica carry 1/rf of the leadership; a
// network with whole bounds has a whole flow between the same bounds.
func (b *board) evenLeaders(placed [][]int) {
	f := newLeaderFlow(len(b.nodes), placed)
	order := make([]int, len(b.nodes))
	for moved := true; moved; {
		moved = false
		for n := range order {
			order[n] = n
		}
		slices.SortStableFunc(order, func(x, y int) int { return b.nodes[y].Leaders - b.nodes[x].Leaders })
		for _, from := range order {
			if path := f.path(from, func(to int) bool { return b.nodes[to].Leaders+2 <= b.nodes[from].Leaders }); path != nil {
				f.shift(path, placed)
				b.nodes[from].Leaders--
				b.nodes[path[len(path)-1]].Leaders++
				moved = true
				break
			}
		}
	}
}

// leaderFlow knows which leadership could go where.
type leaderFlow struct {
	// movable counts, by leader and other replica, the partitions whose leadership
	// could move along that edge; partitions lists those ever led by a node and
	// replicated on another, some of which have another leader by now.
	movable    [][]int
	partitions [][][]int
}

func newLeaderFlow(nodes int, placed [][]int) *leaderFlow {
	f := &leaderFlow{movable: make([][]int, nodes), partitions: make([][][]int, nodes)}
	for n := range nodes {
		f.movable[n], f.partitions[n] = make([]int, nodes), make([][]int, nodes)
	}
	for p, replicas := range placed {
		f.add(p, replicas)
	}
	return f
}

func (f *leaderFlow) add(p int, replicas []int) {
	for _, to := range replicas[1:] {
		f.movable[replicas[0]][to]++
		f.partitions[replicas[0]][to] = append(f.partitions[replicas[0]][to], p)
	}
}

// path finds the shortest way for one leadership from a node to one that is
// good, nil if there is none.
func (f *leaderFlow) path(from int, good func(int) bool) []int {
	before := make([]int, len(f.movable))
	for n := range before {
		before[n] = -1
	}
	before[from] = from
	for queue := []int{from}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if n != from && good(n) {
			path := []int{n}
			for n != from {
				n = before[n]
				path = append(path, n)
			}
			slices.Reverse(path)
			return path
		}
		for to, count := range f.movable[n] {
			if count > 0 && before[to] < 0 {
				before[to] = n
				queue = append(queue, to)
			}
		}
	}
	return nil
}

// shift moves one leadership along every edge of the path.
func (f *leaderFlow) shift(path []int, placed [][]int) {
	for i := 1; i < len(path); i++ {
		from, to := path[i-1], path[i]
		list := f.partitions[from][to]
		p := list[len(list)-1]
		for placed[p][0] != from { // moved away since it was listed
			list = list[:len(list)-1]
			p = list[len(list)-1]
		}
		f.partitions[from][to] = list[:len(list)-1]
		replicas := placed[p]
		for _, other := range replicas[1:] {
			f.movable[from][other]--
		}
		k := slices.Index(replicas, to)
		replicas[0], replicas[k] = replicas[k], replicas[0]
		f.add(p, replicas)
	}
}
