package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/test/harness"
)

// way is how the client reaches the cluster.
type way struct {
	name string
	dial func() (net.Conn, error)
	// through is the shim on the way, whose CPU counts, too; nil: none is.
	through *harness.Process
}

// ways lead to the first node; its role (leader or not) is what placement made it.
func ways(c *harness.Cluster) []way {
	node := c.Node(1).Addr()
	return []way{
		{"TCP", func() (net.Conn, error) { return net.Dial("tcp", node) }, nil},
		{"WebSocket", func() (net.Conn, error) {
			return (&shim.Dialer{}).DialContext(context.Background(), "tcp", node)
		}, nil},
		{"shim", func() (net.Conn, error) { return net.Dial("tcp", c.ShimAddr()) }, c.Shim},
	}
}

// What clients speak: Kafka 0.8, or the newest versions that are not flexible, which are cheap to
// read and write here.
const (
	produceVersion = 8
	fetchVersion   = 11
	recordSize     = 1 << 10 // bytes of a record's value
)

// payload is a batch that is produced again and again.
type payload struct {
	old       bool // a message set of magic 0, by Produce v0
	set       []byte
	records   int
	isolation int8 // of fetches: 1, read_committed
}

// batch gives whole 1 KB records of noise that make about size bytes on the wire.
func batch(size int, old bool) payload {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	value := make([]byte, recordSize)
	noise := func() []byte {
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		return value
	}
	p := payload{old: old}
	if old {
		for ; p.records == 0 || len(p.set)+recordSize+26 <= size; p.records++ {
			p.set = harness.Message(p.set, int64(p.records), 0, nil, noise())
		}
		return p
	}
	now := time.Now().UnixMilli() // older records would be deleted by retention
	var records []byte
	for ; p.records == 0 || len(records)+recordSize+12+61 <= size; p.records++ {
		r := kmsg.Record{OffsetDelta: int32(p.records), Value: noise()}
		body := r.AppendTo(nil)[1:] // the length is a varint; Length 0 takes one byte
		r.Length = int32(len(body))
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(p.records - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(p.records), Records: records,
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	set := b.AppendTo(nil)
	binary.BigEndian.PutUint32(set[17:], crc32.Checksum(set[21:], crc32.MakeTable(crc32.Castagnoli)))
	p.set = set
	return p
}

// produceRequest gives a whole request for one batch to one partition.
func (p payload) produceRequest(topic string, partition int32) []byte {
	if p.old {
		return harness.Request(0, 0, 1, harness.ProduceBody(topic, partition, -1, 30_000, p.set))
	}
	r := kmsg.NewPtrProduceRequest()
	r.SetVersion(produceVersion)
	r.Acks, r.TimeoutMillis = -1, 30_000
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, p.set
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, part)
	r.Topics = append(r.Topics, t)
	return harness.Request(0, produceVersion, 1, r.AppendTo(nil))
}

// readProduce checks one answer.
func (p payload) readProduce(answer []byte) error {
	if p.old {
		_, err := harness.ReadProduce(answer)
		return err
	}
	r := kmsg.NewPtrProduceResponse()
	r.SetVersion(produceVersion)
	if err := r.ReadFrom(answer); err != nil {
		return err
	}
	if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return errors.New("the answer is about something else")
	}
	if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("produce: error %d", code)
	}
	return nil
}

// fetched is what one fetch gave.
type fetched struct {
	next           int64
	records, bytes int // bytes of user data
}

// fetch reads about 1 MB from an offset on.
func (p payload) fetch(w *harness.Wire, topic string, partition int32, from int64) (f fetched, err error) {
	if p.old {
		_, set, err := w.Fetch(topic, partition, from, 1000, 1, 1<<20)
		if err != nil {
			return f, err
		}
		entries, _, err := harness.Messages(set)
		if err != nil {
			return f, err
		}
		for _, e := range entries {
			if e.Offset >= from {
				f.records++
				f.bytes += len(e.Value)
				f.next = e.Offset + 1
			}
		}
		return f, nil
	}
	r := kmsg.NewPtrFetchRequest()
	r.SetVersion(fetchVersion)
	r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.SessionEpoch, r.IsolationLevel = 1000, 1, 50<<20, -1, p.isolation
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes, part.CurrentLeaderEpoch = partition, from, 1<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, part)
	r.Topics = append(r.Topics, t)
	answer, err := w.Ask(r)
	if err != nil {
		return f, err
	}
	a := answer.(*kmsg.FetchResponse)
	if len(a.Topics) != 1 || len(a.Topics[0].Partitions) != 1 {
		return f, errors.New("the answer is about something else")
	}
	got := a.Topics[0].Partitions[0]
	if got.ErrorCode != 0 {
		return f, fmt.Errorf("fetch: %w", harness.ErrorCode(got.ErrorCode))
	}
	// Batches are walked over by their headers: what is in them has been checked by the tests.
	for set := got.RecordBatches; len(set) >= 61; {
		size := 12 + int(binary.BigEndian.Uint32(set[8:]))
		if size > len(set) {
			break
		}
		base, last := int64(binary.BigEndian.Uint64(set)), int64(binary.BigEndian.Uint32(set[23:]))
		first := max(base, from)
		f.records += int(base + last + 1 - first)
		f.next = base + last + 1
		set = set[size:]
	}
	f.bytes = f.records * recordSize
	return f, nil
}
