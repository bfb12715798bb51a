package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

// A request that was on its way while leadership went and came back must not
// land behind a later one, so it names the term that it meant.
func TestAnAppendMeantForAnotherTermIsRefused(t *testing.T) {
	inBubble(t, testAnAppendMeantForAnotherTermIsRefused)
}

func testAnAppendMeantForAnotherTermIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	c.leaderOf(id)
	r := c.nodes[0].records(id)
	h, _ := r.Leader()
	for _, term := range []uint64{h.Term - 1, h.Term + 1} {
		_, err := r.Append(within(t), term, []kafkaproto.Batch{prototest.Batch("x")})
		var notLeader errNotLeader
		if !errors.As(err, &notLeader) || notLeader.Hint != h || !outcome.NotAppended(err) {
			t.Errorf("term %d in term %d: %v", term, h.Term, err)
		}
	}
	if _, err := r.Append(within(t), h.Term, []kafkaproto.Batch{prototest.Batch("x")}); err != nil {
		t.Error(err)
	}
	c.wantEverywhere(id, []string{"x"})
}

// Appends that wait together share Raft entries: every one gets offsets of its
// own, its batches stay neighbours, and one whose caller has gone before it was
// stamped is not appended.
func TestAppendsThatWaitTogetherKeepApart(t *testing.T) {
	inBubble(t, testAppendsThatWaitTogetherKeepApart)
}

func testAppendsThatWaitTogetherKeepApart(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	c.leaderOf(id)
	node := c.nodes[0].Node
	const appends = 200
	bases := make([]fsm.Offset, appends)
	var all sync.WaitGroup
	for i := range appends {
		all.Go(func() {
			appended, err := node.Append(within(t), id, batchList{prototest.Batch(fmt.Sprintf("%d-a", i), fmt.Sprintf("%d-b", i)), prototest.Batch(fmt.Sprintf("%d-c", i))})
			if err != nil {
				t.Errorf("append %d: %v", i, err)
				return
			}
			if appended[1].BaseOffset != appended[0].BaseOffset+2 {
				t.Errorf("append %d: batches at %d and %d", i, appended[0].BaseOffset, appended[1].BaseOffset)
			}
			bases[i] = appended[0].BaseOffset
		})
	}
	all.Wait()
	values, err := valuesFrom(within(t), node, id)
	if err != nil || len(values) != 3*appends {
		t.Fatalf("%d values, %v", len(values), err)
	}
	for i, base := range bases {
		if want := []string{fmt.Sprintf("%d-a", i), fmt.Sprintf("%d-b", i), fmt.Sprintf("%d-c", i)}; !slices.Equal(values[base:base+3], want) {
			t.Errorf("at %d stands %q, want %q", base, values[base:base+3], want)
		}
	}
	if last := node.records(id).Member.Raft.LastIndex(); last > appends {
		t.Errorf("%d appends took %d Raft entries: none were put together", appends, last)
	}

	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := node.Append(gone, id, batchList{prototest.Batch("nobody waits for this")}); err == nil {
		t.Error("an append without a caller was acknowledged")
	}
}

// Bytes that are no batch are refused before they are proposed: a first byte of
// 0x80 and above would make them a control command.
func TestWhatIsNoBatchIsNotProposed(t *testing.T) { inBubble(t, testWhatIsNoBatchIsNotProposed) }

func testWhatIsNoBatchIsNotProposed(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	id := fsm.PartitionID{Topic: c.topic("a", 1, 1).ID}
	c.mustAppend(0, id, "v")
	logStart := append([]byte{0x81}, make([]byte, 8)...)
	logStart[8] = 1
	x := prototest.Batch("x").Bytes()
	for _, bad := range [][]byte{nil, {0}, logStart, x[:70], append(x, 0)} {
		if _, err := kafkaproto.ParseBatch(bad); err == nil {
			t.Errorf("%x is taken for a batch", bad)
		}
	}
	if _, err := c.nodes[0].Append(within(t), id, batchList{prototest.Batch("y"), {}}); outcome.Code(err) != outcome.ErrCorruptMessage {
		t.Errorf("no batch at all: %v", err)
	}
	c.wantEverywhere(id, []string{"v"})
}
