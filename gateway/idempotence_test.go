package gateway

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// producerBatch is a batch of an idempotent producer.
func producerBatch(producer int64, epoch int16, sequence int32, values ...string) []byte {
	b := recordBatch(values...)
	be := binary.BigEndian
	be.PutUint64(b[43:], uint64(producer))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(sequence))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// Every version gives a producer id of its own; where not all nodes know transactions a
// transactional id is refused for good.
func TestInitProducerID(t *testing.T) {
	f := newFakeAt(t, fsm.LevelTransactions-1)
	c := serve(t, f, nil).dial()
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = v
		resp := c.ask(req).(*kmsg.InitProducerIDResponse)
		if resp.ErrorCode != 0 || resp.ProducerID != int64(v)+1 || resp.ProducerEpoch != 0 {
			t.Errorf("version %d: %+v", v, resp)
		}
		req.TransactionalID = kmsg.StringPtr("t")
		if resp = c.ask(req).(*kmsg.InitProducerIDResponse); resp.ErrorCode != kerr.TransactionalIDAuthorizationFailed.Code || resp.ProducerID != -1 {
			t.Errorf("version %d, transactional: %+v", v, resp)
		}
	}
	f.newID = func(context.Context) (int64, error) { return 0, outcome.ErrNoLeader }
	if resp := c.ask(kmsg.NewPtrInitProducerIDRequest()).(*kmsg.InitProducerIDResponse); resp.ErrorCode != kerr.CoordinatorLoadInProgress.Code {
		t.Errorf("without a leader: %+v", resp)
	}
}

// What the partition says of each batch reaches its request, whatever others it
// was appended together with.
func TestBatchesOfOneAppendFailAlone(t *testing.T) {
	f := newFake(t, "a")
	verdicts := map[int32]fsm.Appended{
		0: {BaseOffset: 100, LogStart: 3},
		1: {BaseOffset: -1, Err: outcome.ErrOutOfOrderSequence},
		2: {BaseOffset: -1, Err: outcome.ErrInvalidProducerEpoch},
		3: {BaseOffset: 101, LogStart: 3},
	}
	f.append = func(_ context.Context, _ fsm.PartitionID, batches []kafkaproto.Batch) (out []fsm.Appended, _ error) {
		for _, b := range batches {
			out = append(out, verdicts[b.Header().BaseSequence])
		}
		return out, nil
	}
	c := serve(t, f, nil).dial()
	for i := range int32(4) {
		c.send(encode(i, produceAt(9, f, "a", 0, producerBatch(7, 0, i, "x"))))
	}
	for i, want := range []int16{0, kerr.OutOfOrderSequenceNumber.Code, kerr.InvalidProducerEpoch.Code, 0} {
		b, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = 9
		if err := resp.ReadFrom(b[9:]); err != nil {
			t.Fatal(err)
		}
		p := resp.Topics[0].Partitions[0]
		if v := verdicts[int32(i)]; p.ErrorCode != want || p.BaseOffset != int64(v.BaseOffset) {
			t.Errorf("batch %d: %+v", i, p)
		}
	}
}

// A batch that was there already is answered with the time that stands in the log.
func TestADuplicateHasTheTimeOfTheFirst(t *testing.T) {
	f := newFake(t)
	if err := f.doCreate(fsm.TopicSpec{Name: "a", Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{"message.timestamp.type": "LogAppendTime"}}, false); err != nil {
		t.Fatal(err)
	}
	f.append = func(context.Context, fsm.PartitionID, []kafkaproto.Batch) ([]fsm.Appended, error) {
		return []fsm.Appended{{BaseOffset: 5, Timestamp: 1234}}, nil
	}
	c := serve(t, f, nil).dial()
	resp := c.ask(produceAt(9, f, "a", 0, producerBatch(7, 0, 0, "x"))).(*kmsg.ProduceResponse)
	if p := resp.Topics[0].Partitions[0]; p.LogAppendTime != 1234 || p.BaseOffset != 5 {
		t.Errorf("%+v", p)
	}
}

// When a batch fails, those that its producer had in flight behind it fail as well,
// until it is sent again: a leader that knows nothing of the producer would take
// them for its first. Other producers and other epochs are not concerned, and who
// gives the batch up gets on after what can have been in flight.
func TestNothingOvertakesABatchThatFailed(t *testing.T) {
	f := newFake(t, "a")
	var mu sync.Mutex
	failing := true
	var taken []int32
	f.append = func(_ context.Context, _ fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		mu.Lock()
		defer mu.Unlock()
		if failing {
			return nil, outcome.ErrNoLeader
		}
		for _, b := range batches {
			taken = append(taken, b.Header().BaseSequence)
		}
		return make([]fsm.Appended, len(batches)), nil
	}
	c := serve(t, f, nil).dial()
	produce := func(producer int64, epoch int16, sequence int32) int16 {
		return c.ask(produceAt(9, f, "a", 0, producerBatch(producer, epoch, sequence, "x"))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}
	const again = 6 // NOT_LEADER_OR_FOLLOWER
	fail := func(producer int64, sequence int32) {
		t.Helper()
		mu.Lock()
		failing, taken = true, nil
		mu.Unlock()
		if code := produce(producer, 0, sequence); code != again {
			t.Fatalf("%d", code)
		}
		mu.Lock()
		failing = false
		mu.Unlock()
	}
	want := func(why string, sequences ...int32) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(taken, sequences) {
			t.Errorf("%s: %d were appended, want %d", why, taken, sequences)
		}
	}
	codes := func(why string, got ...int16) {
		t.Helper()
		for i := 0; i < len(got); i += 2 {
			if got[i] != got[i+1] {
				t.Errorf("%s: answer %d is %d, want %d", why, i/2, got[i], got[i+1])
			}
		}
	}

	fail(7, 0)
	codes("in flight", produce(7, 0, 1), again, produce(8, 0, 5), 0, produce(7, 0, 2), again)
	codes("again", produce(7, 0, 0), 0, produce(7, 0, 1), 0, produce(7, 0, 2), 0)
	want("again", 5, 0, 1, 2)

	fail(7, 3)
	codes("new epoch", produce(7, 0, 4), again, produce(7, 1, 0), 0, produce(7, 1, 1), 0)
	want("new epoch", 0, 1)

	fail(7, 2147483647)
	codes("wrapped", produce(7, 0, 0), again, produce(7, 0, 2147483646), 0)
	want("wrapped", 2147483646)

	fail(9, 10)
	codes("given up", produce(9, 0, 11), again, produce(9, 0, 12), again, produce(9, 0, 13), again, produce(9, 0, 14), again, produce(9, 0, 15), 0)
	want("given up", 15)
}
