package cluster

import (
	"context"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// A client begins all the transactions it can in one partition, in turns through all nodes: it gets
// one client's share of what may be open there, not one for each node, and whichever of them
// another client is connected to, there is room for it.
func TestOneClientLeavesRoomThroughAllNodes(t *testing.T) {
	inBubble(t, testOneClientLeavesRoomThroughAllNodes)
}

func testOneClientLeavesRoomThroughAllNodes(t *testing.T) {
	c := newTestCluster(t, 3)
	for i := range c.nodes {
		c.nodes[i].cfg.joinTransaction = func(context.Context, fsm.Transaction, int64, int16, fsm.PartitionID, int32) error { return nil }
	}
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 3).ID}
	c.mustAppend(0, id, "before")
	producer := int64(0)
	// begin tries to begin each transactions through a node, over a connection of its own, and
	// gives how many were begun.
	begin := func(node int, client uint16, each int) (begun int) {
		t.Helper()
		batches := make([]kafkaproto.Batch, each)
		for i := range batches {
			producer++
			batches[i] = transactionalBatch(producer, 0, 0, "v")
		}
		n := c.nodes[node]
		appended, err := n.AppendInLine(within(t), id, n.NewLine(client), fsm.Transaction{ID: "t", Add: true}, batches)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range appended {
			switch a.Err {
			case 0:
				begun++
			case outcome.ErrConcurrentTransactions:
			default:
				t.Fatal(a.Err)
			}
		}
		return begun
	}
	const greedy, each = 3, 1000
	// What is applied while the next is judged may count twice, so that one may get less than it
	// can.
	begun, idle := 0, 0
	for at := 0; idle < 2 && at < 40; at++ {
		if n := begin(at%3, greedy, each); n > 0 {
			begun, idle = begun+n, 0
		} else {
			idle++
		}
	}
	if share := fsm.MaxOpenTransactions / 5; begun < share-1 || begun > share+1 {
		t.Errorf("one client has %d open, want %d", begun, share)
	}
	for i := range c.nodes {
		if n := begin(i, greedy, 1); n != 0 {
			t.Errorf("through node %d it begins one more", i)
		}
		if n := begin(i, uint16(10+i), 100); n != 100 {
			t.Errorf("another one could begin %d through node %d", n, i)
		}
	}
}
