package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// transactor is a client with the transactional id txn-1.
type transactor struct {
	*client
	t        *testing.T
	producer int64
	epoch    int16
}

func (x *transactor) init(version int16) {
	x.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = version, kmsg.StringPtr("txn-1"), 60_000
	resp := x.ask(req).(*kmsg.InitProducerIDResponse)
	if resp.ErrorCode != 0 {
		x.t.Fatalf("InitProducerID v%d: %+v", version, resp)
	}
	x.producer, x.epoch = resp.ProducerID, resp.ProducerEpoch
}

// add gives the codes of the partitions that are named.
func (x *transactor) add(version int16, topics ...kmsg.AddPartitionsToTxnRequestTopic) (codes []int16) {
	x.t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Topics = version, "txn-1", x.producer, x.epoch, topics
	for _, topic := range x.ask(req).(*kmsg.AddPartitionsToTxnResponse).Topics {
		for _, p := range topic.Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	return codes
}

func (x *transactor) addOffsets(version int16) int16 {
	x.t.Helper()
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = version, "txn-1", x.producer, x.epoch, "readers-1"
	return x.ask(req).(*kmsg.AddOffsetsToTxnResponse).ErrorCode
}

func (x *transactor) commit(version int16, topic string, offset int64) int16 {
	x.t.Helper()
	req := txnCommitOf(version, x.producer, topic, offset)
	req.ProducerEpoch = x.epoch
	return x.ask(req).(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
}

func (x *transactor) end(version int16, commit bool) int16 {
	x.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = version, "txn-1", x.producer, x.epoch, commit
	resp := x.ask(req).(*kmsg.EndTxnResponse)
	if version >= 5 && resp.ErrorCode == 0 {
		x.producer, x.epoch = resp.ProducerID, resp.ProducerEpoch
	}
	return resp.ErrorCode
}

// offset gives what the group has committed for partition 0 of events.
func (x *transactor) offset(stable bool) (offset int64, code int16) {
	x.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.RequireStable = 8, stable
	req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "readers-1", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "events", Partitions: []int32{0}}}}}
	p := x.ask(req).(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}

// TestATransaction goes through every version in which clients speak of one: partitions and offsets
// are added, offsets pend, and the end has them committed or dropped, and markers written.
func TestATransaction(t *testing.T) {
	type versions struct{ init, add, addOffsets, commit, end int16 }
	for _, v := range []versions{{0, 0, 0, 0, 0}, {1, 1, 1, 2, 1}, {2, 2, 2, 3, 2}, {3, 3, 3, 4, 3}, {4, 3, 4, 4, 4}, {5, -1, -1, 5, 5}} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			f := newFake(t, "events:2")
			x := &transactor{client: serve(t, f, nil).dial(), t: t}
			x.init(v.init)
			for n, commit := range []bool{true, false, true} {
				offset := int64(n + 1)
				if v.add >= 0 {
					if codes := x.add(v.add, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0, 1}}); !slices.Equal(codes, []int16{0, 0}) {
						t.Fatalf("%+v: added: %v", v, codes)
					}
					if code := x.addOffsets(v.addOffsets); code != 0 {
						t.Fatalf("%+v: offsets added: %d", v, code)
					}
				}
				before, _ := x.offset(false)
				if code := x.commit(v.commit, "events", offset); code != 0 {
					t.Fatalf("%+v: offset committed: %d", v, code)
				}
				if got, code := x.offset(false); got != before || code != 0 {
					t.Errorf("%+v: a pending offset is seen: %d, code %d", v, got, code)
				}
				if _, code := x.offset(true); code != kerr.UnstableOffsetCommit.Code {
					t.Errorf("%+v: while one is pending a stable offset is code %d", v, code)
				}
				if code := x.end(v.end, commit); code != 0 {
					t.Fatalf("%+v: ended: %d", v, code)
				}
				want := offset
				if !commit {
					want = before
				}
				eventually(t, fmt.Sprintf("transaction %d, commit %v: the stable offset does not become %d", n, commit, want), func() bool {
					got, code := x.offset(true)
					return got == want && code == 0
				})
				if v.add < 0 {
					continue // no partition was added
				}
				for partition := range int32(2) {
					eventually(t, fmt.Sprintf("transaction %d: partition %d has no marker", n, partition), func() bool { return len(f.markersOf("events", partition)) > n })
					got := f.markersOf("events", partition)
					if len(got) != n+1 || got[n].Commit != commit || got[n].ProducerID != x.producer || got[n].Forced {
						t.Errorf("%+v: transaction %d, markers of partition %d: %+v", v, n, partition, got)
					}
				}
			}
		})
	}
}

// One partition that cannot be added keeps the others from it.
func TestAddPartitionsFailTogether(t *testing.T) {
	f := newFake(t, "events:2")
	x := &transactor{client: serve(t, f, nil).dial(), t: t}
	x.init(3)
	unknown, not := kerr.UnknownTopicOrPartition.Code, kerr.OperationNotAttempted.Code
	for _, test := range []struct {
		topic     string
		partition int32
	}{{"events", 2}, {"events", -1}, {"gone", 0}, {"group:readers-1", 0}, {"", 0}} {
		got := x.add(3, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0, 1}},
			kmsg.AddPartitionsToTxnRequestTopic{Topic: test.topic, Partitions: []int32{test.partition}})
		if !slices.Equal(got, []int16{not, not, unknown}) {
			t.Errorf("%+v: %v", test, got)
		}
	}
	if code := x.end(3, true); code != kerr.InvalidTxnState.Code {
		t.Errorf("something was added: its end is code %d", code)
	}
}

// What clients of old versions do not know they are not told.
func TestErrorsOfTransactionsByVersion(t *testing.T) {
	f := newFake(t, "events")
	x := &transactor{client: serve(t, f, nil).dial(), t: t}
	x.init(3)
	x.epoch += 5
	fenced, epoch := kerr.ProducerFenced.Code, kerr.InvalidProducerEpoch.Code
	for v := range int16(4) {
		want := fenced
		if v < 2 {
			want = epoch
		}
		if got := x.add(v, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0}}); got[0] != want {
			t.Errorf("AddPartitionsToTxn v%d: %d, want %d", v, got[0], want)
		}
		if got := x.addOffsets(v); got != want {
			t.Errorf("AddOffsetsToTxn v%d: %d, want %d", v, got, want)
		}
		if got := x.end(v, true); got != want {
			t.Errorf("EndTxn v%d: %d, want %d", v, got, want)
		}
	}
	x.epoch -= 5
	if code := x.add(3, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0}}); code[0] != 0 {
		t.Fatal(code)
	}
	for v := range int16(5) { // the group was not added
		want := kerr.InvalidTxnState.Code
		if v >= 4 {
			want = kerr.TransactionAbortable.Code
		}
		if got := x.commit(v, "events", 1); got != want {
			t.Errorf("TxnOffsetCommit v%d: %d, want %d", v, got, want)
		}
	}
	for v := range int16(6) {
		if got := x.commit(v, "gone", 1); got != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("TxnOffsetCommit v%d of a topic that is not there: %d", v, got)
		}
		init := kmsg.NewPtrInitProducerIDRequest()
		init.Version, init.TransactionalID, init.TransactionTimeoutMillis, init.ProducerID = v, kmsg.StringPtr("txn-1"), 1000, 3
		want := kerr.InvalidRequest.Code
		if v < 3 {
			want = 0 // it cannot say that
		}
		if got := x.ask(init).(*kmsg.InitProducerIDResponse).ErrorCode; got != want {
			t.Errorf("InitProducerID v%d with an id and no epoch: %d, want %d", v, got, want)
		}
	}
	f.coordinateErr = outcome.ErrNoLeader
	if got := x.end(3, true); got != kerr.NotCoordinator.Code {
		t.Errorf("EndTxn without a coordinator: %d", got)
	}
	f.coordinateErr = outcome.ErrUnknownFate
	if got := x.end(3, true); got != kerr.CoordinatorNotAvailable.Code {
		t.Errorf("EndTxn of unknown fate: %d", got)
	}
}

// An operator's marker is a forced one; each partition has its own outcome.
func TestWriteTxnMarkers(t *testing.T) {
	f := newFake(t, "events:2")
	c := serve(t, f, nil).dial()
	for v := range int16(3) {
		req := markersOf(v, 7, "events", 1)
		req.Markers[0].Topics = append(req.Markers[0].Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: "gone", Partitions: []int32{0}},
			kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: "events", Partitions: []int32{2}})
		m := c.ask(req).(*kmsg.WriteTxnMarkersResponse).Markers[0]
		unknown := kerr.UnknownTopicOrPartition.Code
		if got := []int16{m.Topics[0].Partitions[0].ErrorCode, m.Topics[1].Partitions[0].ErrorCode, m.Topics[2].Partitions[0].ErrorCode}; !slices.Equal(got, []int16{0, unknown, unknown}) || m.ProducerID != 7 {
			t.Errorf("v%d: %+v", v, m)
		}
		if got := f.markersOf("events", 1); len(got) != int(v)+1 || got[v] != (fsm.Marker{ProducerID: 7, Epoch: 3, Number: 9, Forced: true}) {
			t.Errorf("v%d: written %+v", v, got)
		}
	}
	f.markerErr = outcome.ErrNoLeader
	if got := c.ask(markersOf(1, 7, "events", 1)).(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode; got != kerr.NotLeaderForPartition.Code {
		t.Errorf("without a leader: %d", got)
	}
	if got := c.ask(markersOf(1, -7, "events", 1)).(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode; got != kerr.InvalidProducerEpoch.Code {
		t.Errorf("of no producer: %d", got)
	}
}

// DescribeTransactions and ListTransactions show what is open, wherever it is coordinated.
func TestTransactionsAreShown(t *testing.T) {
	f := newFake(t, "events:2")
	x := &transactor{client: serve(t, f, nil).dial(), t: t}
	x.init(3)
	x.add(3, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{1}})
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"txn-1", "none", "txn-1", "txn-1"}
	states := x.ask(describe).(*kmsg.DescribeTransactionsResponse).TransactionStates
	if len(states) != 2 {
		t.Errorf("%d are described, of 2", len(states))
	}
	if s := states[0]; s.ErrorCode != 0 || s.State != "Ongoing" || s.ProducerID != x.producer || s.TimeoutMillis != 60_000 || len(s.Topics) != 1 || !slices.Equal(s.Topics[0].Partitions, []int32{1}) {
		t.Errorf("%+v", s)
	}
	if s := states[1]; s.ErrorCode != kerr.TransactionalIDNotFound.Code {
		t.Errorf("%+v", s)
	}
	for v := range int16(3) {
		list := kmsg.NewPtrListTransactionsRequest()
		list.Version, list.StateFilters = v, []string{"Ongoing", "Nonsense"}
		resp := x.ask(list).(*kmsg.ListTransactionsResponse)
		if len(resp.TransactionStates) != 1 || resp.TransactionStates[0].TransactionalID != "txn-1" || !slices.Equal(resp.UnknownStateFilters, []string{"Nonsense"}) {
			t.Errorf("v%d: %+v", v, resp)
		}
	}
}

// What ListTransactions filters by goes to all coordinators, so it is bounded.
func TestFiltersOfTransactionsAreBounded(t *testing.T) {
	large := strings.Repeat("x", maxFilters+1)
	for name, list := range map[string]kmsg.ListTransactionsRequest{
		"producers": {ProducerIDFilters: make([]int64, maxFilters/8+1)},
		"states":    {StateFilters: make([]string, maxFilters/16+1)},
		"pattern":   {Version: 2, TransactionalIDPattern: &large},
	} {
		c := serve(t, newFake(t, "events:2"), nil).dial()
		c.send(encode(9, &list))
		if _, err := c.frame(); !isClosed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Until all nodes know transactions, there are none.
func TestNoTransactionsBelowTheirLevel(t *testing.T) {
	f := newFakeAt(t, fsm.LevelTransactions-1, "events")
	c := serve(t, f, nil).dial()
	want := kerr.UnsupportedVersion.Code
	add := c.ask(partitionsOf(3, 1, "events")).(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode
	batched := c.ask(partitionsOf(5, 1, "events")).(*kmsg.AddPartitionsToTxnResponse).Transactions[0].Topics[0].Partitions[0].ErrorCode
	offsets := c.ask(kmsg.NewPtrAddOffsetsToTxnRequest()).(*kmsg.AddOffsetsToTxnResponse).ErrorCode
	end := c.ask(kmsg.NewPtrEndTxnRequest()).(*kmsg.EndTxnResponse).ErrorCode
	markers := c.ask(markersOf(1, 1, "events", 0)).(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode
	commit := c.ask(txnCommitOf(3, 1, "events", 1)).(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"a"}
	described := c.ask(describe).(*kmsg.DescribeTransactionsResponse).TransactionStates[0].ErrorCode
	for name, got := range map[string]int16{"add": add, "batched": batched, "offsets": offsets, "end": end, "markers": markers, "commit": commit, "described": described} {
		if got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	if resp := c.ask(kmsg.NewPtrListTransactionsRequest()).(*kmsg.ListTransactionsResponse); resp.ErrorCode != 0 || len(resp.TransactionStates) > 0 {
		t.Errorf("listed: %+v", resp)
	}
	if len(f.written) > 0 {
		t.Errorf("markers were written: %v", f.written)
	}
}

// While all nodes know transactions, and the cluster's level is about to rise, clients are told to
// ask again.
func TestTransactionsAreAboutToCome(t *testing.T) {
	f := newFakeAt(t, fsm.LevelTransactions-1, "events")
	for _, node := range f.Topics().Nodes() {
		node.FeatureLevel = fsm.LevelTransactions
		if err := f.apply(fsm.CatalogCommand{RegisterNode: &node}); err != nil {
			t.Fatal(err)
		}
	}
	c := serve(t, f, nil).dial()
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID = kmsg.StringPtr("txn-1")
	if got := c.ask(init).(*kmsg.InitProducerIDResponse).ErrorCode; got != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("InitProducerID: %d", got)
	}
	if got := c.ask(kmsg.NewPtrEndTxnRequest()).(*kmsg.EndTxnResponse).ErrorCode; got != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("EndTxn: %d", got)
	}
	if got := c.ask(kmsg.NewPtrListTransactionsRequest()).(*kmsg.ListTransactionsResponse).ErrorCode; got != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("ListTransactions: %d", got)
	}
}

// The feature transaction.version is there when all nodes know transactions; what is supported from
// 0 on is kept from clients that fail at it (KAFKA-17492).
func TestTheFeatureOfTransactions(t *testing.T) {
	for level, has := range map[int]bool{fsm.LevelTransactions - 1: false, fsm.FeatureLevel: true} {
		c := serve(t, newFakeAt(t, level), nil).dial()
		api, _ := kafkaproto.Lookup(int16(kmsg.ApiVersions))
		for v := range api.Max + 1 {
			resp := c.ask(&kmsg.ApiVersionsRequest{Version: v, ClientSoftwareName: "a", ClientSoftwareVersion: "1", NodeID: -1}).(*kmsg.ApiVersionsResponse)
			supported, finalized := len(resp.SupportedFeatures) == 1, len(resp.FinalizedFeatures) == 1
			if resp.ErrorCode != 0 || supported != (has && v >= 4) || finalized != (has && v >= 3) {
				t.Errorf("level %d, v%d: %+v", level, v, resp)
				continue
			}
			if supported && (resp.SupportedFeatures[0].Name != "transaction.version" || resp.SupportedFeatures[0].MinVersion != 0 || resp.SupportedFeatures[0].MaxVersion != 2) {
				t.Errorf("v%d: supported %+v", v, resp.SupportedFeatures)
			}
			if f := resp.FinalizedFeatures; finalized && (f[0].Name != "transaction.version" || f[0].MinVersionLevel != 2 || f[0].MaxVersionLevel != 2 || resp.FinalizedFeaturesEpoch != int64(level)) {
				t.Errorf("v%d: finalized %+v, epoch %d", v, f, resp.FinalizedFeaturesEpoch)
			}
		}
	}
}

// markersOf gives the markers that were written to a partition.
func (f *fakeCluster) markersOf(topic string, partition int32) []fsm.Marker {
	id := f.id(topic, partition)
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.written[id])
}
