package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What clients send of transactions that is none, to real nodes: each gets Kafka's error, and
// nobody else notices. What Kafka answers is held by the oracle's suite of transactions.

// transacting is a client with a transactional id.
type transacting struct {
	*harness.Wire
	t        *testing.T
	id       string
	producer int64
	epoch    int16
	sequence map[string]int32 // by topic; partition 0
}

func newTransacting(t *testing.T, c *harness.Cluster, id string) *transacting {
	t.Helper()
	x := &transacting{Wire: dial(t, c.Node(1).Addr()), t: t, id: id}
	x.init(60_000)
	return x
}

func (x *transacting) ask(req kmsg.Request) kmsg.Response {
	x.t.Helper()
	resp, err := x.AskWithin(req, time.Minute)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp
}

func (x *transacting) init(timeoutMs int32) {
	x.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, &x.id, timeoutMs
	var resp *kmsg.InitProducerIDResponse
	err := again(func() error {
		resp = x.ask(req).(*kmsg.InitProducerIDResponse)
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		x.t.Fatal(err)
	}
	x.producer, x.epoch, x.sequence = resp.ProducerID, resp.ProducerEpoch, map[string]int32{}
}

// again asks until the answer is not one after which a client asks again, for a minute at most.
func again(ask func() error) (err error) {
	_ = harness.Eventually(time.Minute, func() bool {
		err = ask()
		return !harness.Retriable(err)
	})
	return err
}

// batchOf is a batch of one transactional record.
func batchOf(producer int64, epoch int16, sequence int32, value []byte) []byte {
	r := kmsg.Record{Value: value}
	r.Length = int32(len(r.AppendTo(nil)) - 1)
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: 0x10, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, ProducerEpoch: epoch, FirstSequence: sequence, NumRecords: 1, Records: r.AppendTo(nil)}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	set := b.AppendTo(nil)
	binary.BigEndian.PutUint32(set[17:], crc32.Checksum(set[21:], crc32.MakeTable(crc32.Castagnoli)))
	return set
}

// produce sends a batch to partition 0 of a topic, by that version of Produce, in the name of id.
func (x *transacting) produce(version int16, id *string, topic string, set []byte) error {
	x.t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.TransactionID, req.Acks, req.TimeoutMillis = version, id, -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: set}}}}
	return again(func() error {
		return kerr.ErrorForCode(x.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	})
}

// write sends the producer's next record.
func (x *transacting) write(version int16, topic, value string) error {
	x.t.Helper()
	err := x.produce(version, &x.id, topic, batchOf(x.producer, x.epoch, x.sequence[topic], []byte(value)))
	if err == nil {
		x.sequence[topic]++
	}
	return err
}

func (x *transacting) add(topic string, partitions ...int32) error {
	x.t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 3, x.id, x.producer, x.epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: partitions}}
	return again(func() error {
		return kerr.ErrorForCode(x.ask(req).(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode)
	})
}

func (x *transacting) end(version int16, commit bool) error {
	x.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = version, x.id, x.producer, x.epoch, commit
	return again(func() error {
		resp := x.ask(req).(*kmsg.EndTxnResponse)
		if resp.ErrorCode == 0 && version >= 5 && (resp.ProducerID != x.producer || resp.ProducerEpoch != x.epoch) {
			x.producer, x.epoch, x.sequence = resp.ProducerID, resp.ProducerEpoch, map[string]int32{}
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// stable gives the last stable offset of partition 0 of a topic.
func (x *transacting) stable(topic string) int64 {
	x.t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.IsolationLevel = 5, 1
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = -1
	req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	var answer kmsg.ListOffsetsResponseTopicPartition
	err := again(func() error {
		answer = x.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
		return kerr.ErrorForCode(answer.ErrorCode)
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return answer.Offset
}

func (x *transacting) awaitStable(topic string, want int64) {
	x.t.Helper()
	if err := harness.Eventually(time.Minute, func() bool { return x.stable(topic) == want }); err != nil {
		x.t.Fatalf("the last stable offset is %d, want %d: %v", x.stable(topic), want, err)
	}
}

// TestTransactionalBatchesThatAreRefused: none of them is appended, and none stays open.
func TestTransactionalBatchesThatAreRefused(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("refused")
	create(t, c, topic, 1)
	x := newTransacting(t, c, harness.Topic("id"))
	other := newTransacting(t, c, harness.Topic("other"))
	nobody := "nobody-" + x.id
	batch := func() []byte { return batchOf(x.producer, x.epoch, 0, []byte("v")) }
	for name, test := range map[string]struct {
		err  error
		want []error
	}{
		"without a transaction, v9":          {x.produce(9, &x.id, topic, batch()), []error{kerr.InvalidTxnState}},
		"without a transaction, v11":         {x.produce(11, &x.id, topic, batch()), []error{kerr.TransactionAbortable, kerr.InvalidTxnState}},
		"of a foreign producer":              {x.produce(12, &x.id, topic, batchOf(other.producer, other.epoch, 0, []byte("v"))), []error{kerr.InvalidProducerIDMapping}},
		"of an id that nobody has":           {x.produce(12, &nobody, topic, batch()), []error{kerr.InvalidProducerIDMapping}},
		"of an older epoch":                  {x.produce(12, &x.id, topic, batchOf(x.producer, x.epoch+1, 0, []byte("v"))), []error{kerr.InvalidProducerEpoch}},
		"without an id":                      {x.produce(12, nil, topic, batch()), []error{kerr.InvalidTxnState, kerr.InvalidRecord, kerr.InvalidRequest, kerr.TransactionalIDAuthorizationFailed}},
		"with an id of 30,000 bytes":         {x.produce(9, kmsg.StringPtr(strings.Repeat("x", 30_000)), topic, batch()), []error{kerr.InvalidTxnState, kerr.InvalidProducerIDMapping}},
		"of an end that is another's":        {(&transacting{Wire: x.Wire, t: t, id: other.id, producer: x.producer, epoch: x.epoch}).end(3, true), []error{kerr.InvalidProducerIDMapping}},
		"of an end without a transaction":    {x.end(3, true), []error{kerr.InvalidTxnState}},
		"of an end of an id that nobody has": {(&transacting{Wire: x.Wire, t: t, id: nobody, producer: x.producer}).end(3, true), []error{kerr.InvalidProducerIDMapping}},
	} {
		ok := false
		for _, want := range test.want {
			ok = ok || test.err == want
		}
		if !ok {
			t.Errorf("%s: %v, want one of %v", name, test.err, test.want)
		}
	}
	if got := x.stable(topic); got != 0 {
		t.Errorf("something was appended: the last stable offset is %d", got)
	}
	// All is well afterwards. One record and a marker are two offsets.
	if err := x.write(12, topic, "well"); err != nil {
		t.Fatal(err)
	}
	old := *x
	if err := x.end(5, true); err != nil {
		t.Fatal(err)
	}
	x.awaitStable(topic, 2)
	// After its marker, in both versions: the epoch is another one by now.
	for _, version := range []int16{11, 12} {
		if err := old.produce(version, &old.id, topic, batchOf(old.producer, old.epoch, 1, []byte("late"))); err != kerr.InvalidProducerEpoch {
			t.Errorf("after its marker, v%d: %v", version, err)
		}
	}
	if got := x.stable(topic); got != 2 {
		t.Errorf("the last stable offset is %d", got)
	}
}

// A transaction that stays open for its whole timeout is aborted, and its producer fenced; readers
// of what is committed stood still only that long.
func TestATransactionThatIsLeftOpen(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("left-open")
	create(t, c, topic, 1)
	x := newTransacting(t, c, harness.Topic("id"))
	x.init(1000)
	began := time.Now()
	if err := x.write(12, topic, "left"); err != nil {
		t.Fatal(err)
	}
	if got := x.stable(topic); got != 0 && time.Since(began) < time.Second {
		t.Errorf("while it is open the last stable offset is %d", got)
	}
	x.awaitStable(topic, 2)
	if err := x.write(12, topic, "later"); err != kerr.InvalidProducerEpoch {
		t.Errorf("its producer goes on: %v", err)
	}
	// Its epoch is one below that of the abort, as after an EndTxn of its own: it is fenced and not
	// told that something is wrong with it (KAFKA-20785).
	if err := x.end(5, true); err != kerr.ProducerFenced {
		t.Errorf("its producer commits: %v", err)
	}
	x.init(60_000)
	if err := x.write(12, topic, "again"); err != nil {
		t.Errorf("begun anew: %v", err)
	}
}

// A topic that goes in the middle of a transaction does not keep it from ending.
func TestATopicGoesInATransaction(t *testing.T) {
	c := harness.Shared(t)
	gone, stays := harness.Topic("goes"), harness.Topic("stays")
	create(t, c, gone, 1)
	create(t, c, stays, 1)
	x := newTransacting(t, c, harness.Topic("id"))
	for _, topic := range []string{gone, stays} {
		if err := x.write(12, topic, "v"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteTopic(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := x.end(5, true); err != nil {
		t.Fatal(err)
	}
	x.awaitStable(stays, 2)
	if err := x.write(12, stays, "the next one"); err != nil {
		t.Fatal(err)
	}
}

// A transaction larger than what a node's memory has for requests is written, and committed as one.
func TestATransactionLargerThanMemory(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: []string{"--max-request-bytes", "2000000", "--max-inflight-bytes", "8000000"}})
	if err := c.CreateTopic(t.Context(), "large", 1, 1); err != nil {
		t.Fatal(err)
	}
	x := newTransacting(t, c, "large")
	const n = 64
	value := strings.Repeat("x", 1_000_000)
	for i := range n {
		if err := x.write(12, "large", value); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	if err := x.end(5, true); err != nil {
		t.Fatal(err)
	}
	x.awaitStable("large", n+1)
}

// Many transactional ids, each with a transaction of its own over the same partitions, and one that
// is over many partitions.
func TestManyTransactions(t *testing.T) {
	ids, partitions := 2000, 1000
	if testing.Short() {
		ids, partitions = 200, 100
	}
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true})
	if err := c.CreateTopic(t.Context(), "wide", int32(partitions), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(t.Context(), "narrow", 1, 1); err != nil {
		t.Fatal(err)
	}
	x := newTransacting(t, c, "wide")
	all := make([]int32, partitions)
	for i := range all {
		all[i] = int32(i)
	}
	if err := x.add("wide", all...); err != nil {
		t.Fatal(err)
	}
	if err := x.write(9, "wide", "v"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 20 {
		y := newTransacting(t, c, fmt.Sprint("worker-", worker))
		wg.Go(func() {
			for i := worker; i < ids; i += 20 {
				y.id = fmt.Sprint("id-", i)
				y.init(60_000)
				if err := y.write(12, "narrow", y.id); err != nil {
					t.Errorf("%s: %v", y.id, err)
					return
				}
				if err := y.end(5, true); err != nil {
					t.Errorf("%s: %v", y.id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	x.awaitStable("narrow", int64(2*ids))
	if err := x.end(3, true); err != nil {
		t.Fatal(err)
	}
	x.awaitStable("wide", 2)
}

// TestTransactionsAsTheOperatorSays: the longest timeout is a setting of the nodes, which Kafka's
// tools see, and the metrics tell how transactions ended.
func TestTransactionsAsTheOperatorSays(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, Topics: "ended:1", NodeArgs: []string{"--transaction-max-timeout-ms", "60000"}})
	x := newTransacting(t, c, "operated") // 60 s
	id := "too long"
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, &id, 60_001
	if err := kerr.ErrorForCode(x.ask(req).(*kmsg.InitProducerIDResponse).ErrorCode); err != kerr.InvalidTransactionTimeout {
		t.Errorf("a longer one: %v", err)
	}
	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.Version = 1
	describe.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1", ConfigNames: []string{"transaction.max.timeout.ms"}}}
	told := x.ask(describe).(*kmsg.DescribeConfigsResponse).Resources[0].Configs
	if len(told) != 1 || told[0].Value == nil || *told[0].Value != "60000" {
		t.Errorf("the broker's configuration is told as %+v", told)
	}
	for _, commit := range []bool{true, false, true} {
		if err := x.add("ended", 0); err != nil {
			t.Fatal(err)
		}
		if err := x.write(9, "ended", "x"); err != nil {
			t.Fatal(err)
		}
		if err := x.end(3, commit); err != nil {
			t.Fatal(err)
		}
		if err := x.add("ended", 0); err != nil { // the one before has ended by then
			t.Fatal(err)
		}
	}
	body, _, err := harness.Get("http://" + c.Node(1).Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`trimaran_transactions_ended_total{how="committed"} 2`, `trimaran_transactions_ended_total{how="aborted"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
}
