package descriptors

import "testing"

func TestClientsNeverHaveAllThereIs(t *testing.T) {
	for _, limit := range []int{64, 200, 256, 1024, 20_000, 1 << 20} {
		for _, nodes := range []int{1, 3} {
			clients, peers := OfNode(limit, nodes)
			if clients < 1 || peers < 1 || limit >= 256 && nodes*(clients+peers) > limit*5/8 {
				t.Errorf("of %d, %d nodes give clients %d, other nodes %d", limit, nodes, clients, peers)
			}
		}
		if clients := OfShim(limit, 3); clients < 1 || limit >= 128 && 2*clients+others > limit {
			t.Errorf("of %d, a shim gives clients %d", limit, clients)
		}
	}
	if Limit() < 1 {
		t.Errorf("the limit is %d", Limit())
	}
}
