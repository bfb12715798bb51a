package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// broker is one in memory that leads both partitions of the topic t. All its answers are those of a
// healthy broker.
type broker struct {
	// cut: the answer to the second Produce request does not come, and the connections end when a
	// partition is added to the transaction meanwhile. refuse: who then connects first is refused.
	// deaf: the connection ends with each Produce request after the first.
	cut, refuse, deaf bool

	mu       sync.Mutex
	conns    []net.Conn
	produced int
	ends     map[int32]int64
}

func (b *broker) dial(context.Context, string, string) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse && !b.cut {
		b.refuse = false
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	b.conns = append(b.conns, server)
	go b.serve(server)
	return client, nil
}

func (b *broker) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		r := kbin.Reader{Src: frame}
		req := kmsg.RequestForKey(r.Int16())
		req.SetVersion(r.Int16())
		correlation := r.Int32()
		var resp kmsg.Response
		if versions, ok := req.(*kmsg.ApiVersionsRequest); ok {
			resp = b.versions(versions)
		} else {
			r.NullableString()
			if err := req.ReadFrom(r.Src); err != nil {
				return
			}
			var err error
			if resp, err = b.answer(req); err != nil {
				return
			}
		}
		if resp == nil {
			continue
		}
		out := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, uint32(correlation))
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// versions has only versions whose headers have no tags.
func (b *broker) versions(req *kmsg.ApiVersionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	resp.Version = 0
	for key, most := range map[kmsg.Key]int16{
		kmsg.ApiVersions: 0, kmsg.Metadata: 8, kmsg.FindCoordinator: 2, kmsg.InitProducerID: 1,
		kmsg.AddPartitionsToTxn: 2, kmsg.Produce: 8, kmsg.OffsetForLeaderEpoch: 3,
	} {
		resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: int16(key), MaxVersion: most})
	}
	if req.Version > 0 {
		resp.ErrorCode = 35 // UNSUPPORTED_VERSION
	}
	return resp
}

// answer gives an error to have the connection closed instead, and nil if there is none.
func (b *broker) answer(req kmsg.Request) (kmsg.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := req.ResponseKind()
	switch req := req.(type) {
	case *kmsg.MetadataRequest:
		resp := resp.(*kmsg.MetadataResponse)
		resp.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "b", Port: 9092}}
		topic := kmsg.MetadataResponseTopic{Topic: kmsg.StringPtr("t")}
		for partition := range int32(2) {
			topic.Partitions = append(topic.Partitions, kmsg.MetadataResponseTopicPartition{
				Partition: partition, Leader: 1, LeaderEpoch: 1, Replicas: []int32{1}, ISR: []int32{1},
			})
		}
		resp.Topics = []kmsg.MetadataResponseTopic{topic}
	case *kmsg.FindCoordinatorRequest:
		resp := resp.(*kmsg.FindCoordinatorResponse)
		resp.NodeID, resp.Host, resp.Port = 1, "b", 9092
	case *kmsg.InitProducerIDRequest:
		resp.(*kmsg.InitProducerIDResponse).ProducerID = 7
	case *kmsg.AddPartitionsToTxnRequest:
		if b.cut && b.produced > 1 {
			b.cut = false
			for _, c := range b.conns {
				c.Close()
			}
			return nil, io.EOF
		}
		resp := resp.(*kmsg.AddPartitionsToTxnResponse)
		for _, t := range req.Topics {
			topic := kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.ProduceRequest:
		return b.append(req, resp.(*kmsg.ProduceResponse))
	default:
		return nil, errors.New("not served")
	}
	return resp, nil
}

// append appends what follows the end of its partition by its sequence number. What was there
// before is told its offset, and all else OUT_OF_ORDER_SEQUENCE_NUMBER, as Kafka does. mu is held.
func (b *broker) append(req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse) (kmsg.Response, error) {
	b.produced++
	if b.deaf && b.produced > 1 {
		return nil, io.EOF
	}
	for _, t := range req.Topics {
		topic := kmsg.ProduceResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(p.Records); err != nil {
				return nil, err
			}
			answer := kmsg.ProduceResponseTopicPartition{Partition: p.Partition, BaseOffset: int64(batch.FirstSequence), LogAppendTime: -1}
			switch first := int64(batch.FirstSequence); {
			case first > b.ends[p.Partition]:
				answer.ErrorCode, answer.BaseOffset = 45, -1
			case first == b.ends[p.Partition]:
				b.ends[p.Partition] += int64(batch.NumRecords)
			}
			topic.Partitions = append(topic.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	if b.cut && b.produced == 2 {
		return nil, nil
	}
	return resp, nil
}

// A producer of franz-go's that sleeps is noticed, and so is one that gets nowhere; one that only
// has to ask again is neither. When the case "refuses" fails since the promises are kept, franz-go
// is mended, and all of asleep.go but patience can go.
func TestWhetherPromisesAreKept(t *testing.T) {
	for what, c := range map[string]struct {
		broker *broker
		want   error
		asleep int64
		found  int
	}{
		"answers":  {broker: &broker{}},
		"hangs up": {broker: &broker{cut: true}},
		"refuses":  {broker: &broker{cut: true, refuse: true}, want: errAsleep, asleep: 1},
		"deaf":     {broker: &broker{deaf: true}, want: errUnkept, found: 1},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := &world{options: options{old: true}, seeds: []string{"b:9092"}, h: newHistory()}, new(asking), c.broker
				b.ends = map[int32]int64{}
				cl, err := w.client(kgo.Dialer(b.dial), kgo.WithHooks(a), kgo.TransactionalID("x"),
					kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond))
				if err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				promises := make(chan error, 4)
				produce := func(partitions ...int32) {
					for _, p := range partitions {
						cl.Produce(t.Context(), &kgo.Record{Topic: "t", Partition: p, Value: []byte("v")},
							func(_ *kgo.Record, err error) { promises <- err })
					}
				}
				produce(0)
				if refused, err := w.kept("x", a, promises, 1); refused != nil || err != nil {
					t.Fatal(refused, err)
				}
				produce(0)
				time.Sleep(100 * time.Millisecond)
				produce(0, 1) // in one request
				refused, err := w.kept("x", a, promises, 3)
				if refused != nil || !errors.Is(err, c.want) || w.asleep.Load() != c.asleep || len(w.h.found["unkept"]) != c.found {
					t.Errorf("refused: %v, error %v, want %v; %d asleep, found %q", refused, err, c.want, w.asleep.Load(), w.h.found)
				}
			})
		})
	}
}
