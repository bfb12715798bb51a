package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Transactor is a transactional producer, of version 2 of the protocol, that sends a transaction as
// two requests: a Produce of one record to each of a topic's partitions, and an EndTxn.
type Transactor struct {
	*Wire
	id       string
	producer int64
	epoch    int16
	produce  *kmsg.ProduceRequest
	records  []byte
}

// NewTransactor connects, and begins as that transactional id. The first so many partitions of the
// topic get a record with that value in each transaction.
func NewTransactor(addr, id, topic string, partitions int, value []byte) (*Transactor, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	x := &Transactor{Wire: NewWire(conn), id: id, produce: kmsg.NewPtrProduceRequest()}
	conn.SetDeadline(time.Now().Add(10 * time.Minute))
	r := kmsg.Record{Value: value}
	body := r.AppendTo(nil)[1:] // the length is a varint; Length 0 takes one byte
	r.Length = int32(len(body))
	x.records = r.AppendTo(nil)
	p := x.produce
	p.Version, p.TransactionID, p.Acks, p.TimeoutMillis = 12, &x.id, -1, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	for i := range partitions {
		part := kmsg.NewProduceRequestTopicPartition()
		part.Partition = int32(i)
		t.Partitions = append(t.Partitions, part)
	}
	p.Topics = append(p.Topics, t)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.Version, init.TransactionalID, init.TransactionTimeoutMillis = 4, &x.id, 60_000
	err = x.again(func() error {
		answer, err := x.Ask(init)
		if err != nil {
			return err
		}
		resp := answer.(*kmsg.InitProducerIDResponse)
		x.producer, x.epoch = resp.ProducerID, resp.ProducerEpoch
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// again asks until the answer is no error that a client tries again after.
func (x *Transactor) again(ask func() error) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := ask()
		var code *kerr.Error
		if err == nil || !errors.As(err, &code) || !code.Retriable || time.Now().After(end) {
			return err
		}
	}
}

// Transaction does one, and commits it. It says how long it took until all records were
// acknowledged, and from then on until the end was.
func (x *Transactor) Transaction() (produced, ended time.Duration, err error) {
	now := time.Now()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 0x10, FirstTimestamp: now.UnixMilli(), MaxTimestamp: now.UnixMilli(),
		ProducerID: x.producer, ProducerEpoch: x.epoch, NumRecords: 1, Records: x.records,
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	set := b.AppendTo(nil)
	binary.BigEndian.PutUint32(set[17:], crc32.Checksum(set[21:], crc32.MakeTable(crc32.Castagnoli)))
	for i := range x.produce.Topics[0].Partitions {
		x.produce.Topics[0].Partitions[i].Records = set
	}
	at := time.Now()
	err = x.again(func() error {
		answer, err := x.Ask(x.produce)
		if err != nil {
			return err
		}
		for _, p := range answer.(*kmsg.ProduceResponse).Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("produce: %w", err)
	}
	then := time.Now()
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 5, x.id, x.producer, x.epoch, true
	err = x.again(func() error {
		answer, err := x.Ask(end)
		if err != nil {
			return err
		}
		resp := answer.(*kmsg.EndTxnResponse)
		if resp.ErrorCode == 0 {
			x.producer, x.epoch = resp.ProducerID, resp.ProducerEpoch
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("end: %w", err)
	}
	return then.Sub(at), time.Since(then), nil
}
