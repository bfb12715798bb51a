package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// stuck has each append wait until release is called once more.
func (f *fakeCluster) stuck() (release func()) {
	free := make(chan struct{}, 100)
	f.append = func(_ context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		<-free
		return f.doAppend(p, batches)
	}
	return func() { free <- struct{}{} }
}

func closeWrite(c *client) {
	c.t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// recordsIn is how many records a partition has.
func (f *fakeCluster) recordsIn(topic string, partition int32) int {
	id := f.id(topic, partition)
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.logs[id]; l != nil {
		return int(l.next)
	}
	return 0
}

// What would end or widen a transaction does nothing once its client has closed its side, also
// where nothing behind it was read by then. It is answered, since nobody knows that nobody reads:
// what stands behind it has its answer, too, and in its place.
func TestRequestsOfTransactionsOfWhoIsGone(t *testing.T) {
	f := newFake(t, "events:2")
	release := f.stuck()
	g := serve(t, f, nil)
	x := &transactor{client: g.dial(), t: t}
	x.init(3)
	x.add(3, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0}})
	end := kmsg.NewPtrEndTxnRequest()
	end.Version, end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = 3, "txn-1", x.producer, x.epoch, true
	c := g.dial()
	c.send(slices.Concat(encode(1, produce(1, "events", 1, "a")), encode(2, end), encode(3, metadataOf("events"))))
	closeWrite(c)
	release()
	c.want(1, produce(1, "events", 1).ResponseKind())
	resp := end.ResponseKind().(*kmsg.EndTxnResponse)
	c.want(2, resp)
	if resp.ErrorCode != kerr.NotCoordinator.Code {
		t.Errorf("EndTxn: %d", resp.ErrorCode)
	}
	c.want(3, metadataOf("events").ResponseKind())
	c.closed()

	fencing := kmsg.NewPtrInitProducerIDRequest()
	fencing.Version, fencing.TransactionalID, fencing.TransactionTimeoutMillis = 3, kmsg.StringPtr("txn-1"), 60_000
	abort := markersOf(1, x.producer, "events", 0)
	for _, req := range []kmsg.Request{txnCommitOf(3, x.producer, "events", 9), abort, fencing} {
		c := g.dial()
		add := partitionsOf(3, x.producer, "events") // nothing begins before it is answered
		c.send(slices.Concat(encode(1, produce(1, "events", 1, "a")), encode(2, add), encode(3, req)))
		closeWrite(c)
		release()
		c.want(1, produce(1, "events", 1).ResponseKind())
		c.want(2, add.ResponseKind())
		c.want(3, req.ResponseKind())
		c.closed()
	}
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"txn-1"}
	if s := x.ask(describe).(*kmsg.DescribeTransactionsResponse).TransactionStates[0]; s.State != "Ongoing" || s.ProducerEpoch != x.epoch {
		t.Errorf("the transaction is %s, its producer has epoch %d", s.State, s.ProducerEpoch)
	}
	if got := f.markersOf("events", 0); len(got) > 0 {
		t.Errorf("markers were written: %+v", got)
	}
}

// Whoever sends all it has, closes its half and reads on, has all its answers, in their order.
func TestWhoClosesItsHalfHasAnswers(t *testing.T) {
	f := newFake(t, "events:2")
	release := f.stuck()
	g := serve(t, f, nil)
	x := &transactor{client: g.dial(), t: t}
	x.init(3)
	x.add(3, kmsg.AddPartitionsToTxnRequestTopic{Topic: "events", Partitions: []int32{0}})
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"txn-1"}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 2, "readers", -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	requests := []kmsg.Request{
		produce(1, "events", 0, "a"), produce(-1, "events", 1, "b"), kmsg.NewPtrInitProducerIDRequest(), kmsg.NewPtrListTransactionsRequest(),
		describe, fetchOf("events", 0, 0, time.Second, 1, 1000), commit, kmsg.NewPtrCreateTopicsRequest(), metadataOf("events"),
	}
	var sent []byte
	for i, req := range requests {
		sent = append(sent, encode(int32(i), req)...)
	}
	c := g.dial()
	c.send(sent)
	closeWrite(c)
	release()
	release()
	for i, req := range requests {
		resp := req.ResponseKind()
		c.want(int32(i), resp)
		switch resp := resp.(type) {
		case *kmsg.ProduceResponse:
			if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
				t.Errorf("%+v", p)
			}
		case *kmsg.InitProducerIDResponse:
			if resp.ErrorCode != 0 {
				t.Errorf("%+v", resp)
			}
		case *kmsg.ListTransactionsResponse:
			if len(resp.TransactionStates) != 1 {
				t.Errorf("%+v", resp)
			}
		case *kmsg.DescribeTransactionsResponse:
			if resp.TransactionStates[0].State != "Ongoing" {
				t.Errorf("%+v", resp)
			}
		case *kmsg.FetchResponse:
			if p := resp.Topics[0].Partitions[0]; len(p.RecordBatches) == 0 {
				t.Errorf("%+v", p)
			}
		case *kmsg.OffsetCommitResponse:
			if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
				t.Errorf("OffsetCommit: %d", code)
			}
		}
	}
	c.closed()
}

// What a client sent before it left is stored, whether it wanted an answer or not, and however it
// left: also while nothing can be appended for a moment. Of those that want an answer it is one: to
// the answer, which nobody takes, the client's host may say that all has ended, and what is behind
// the request is not read any more.
func TestRecordsOfWhoLeaves(t *testing.T) {
	cert, roots := certificate(t, "localhost")
	howMany := func(acks int16) int {
		if acks == 0 {
			return 40
		}
		return 1
	}
	send := func(c io.Writer, acks int16) {
		for range howMany(acks) {
			if _, err := c.Write(encode(1, produce(acks, "events", 0, "a"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, acks := range []int16{0, 1} {
		for name, leave := range map[string]func(t *testing.T, g *gatewayOf){
			"tcp": func(t *testing.T, g *gatewayOf) {
				c := g.dial()
				send(c, acks)
				c.Close()
			},
			"tcp, in the middle of a request": func(t *testing.T, g *gatewayOf) {
				c := g.dial()
				send(c, acks)
				c.send(encode(1, produce(acks, "events", 0, "a"))[:20])
				c.Close()
			},
			"tls": func(t *testing.T, g *gatewayOf) {
				c := g.dialTLS(&tls.Config{RootCAs: roots, ServerName: "localhost"})
				send(c, acks)
				c.Close()
			},
			"websocket": func(t *testing.T, g *gatewayOf) {
				ws, resp, err := g.dialWS(nil)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				c := shim.NewConn(ws, 0)
				send(c, acks)
				c.Close()
			},
		} {
			t.Run(fmt.Sprintf("%s, acks %d", name, acks), func(t *testing.T) {
				f := newFake(t, "events")
				release := f.stuck()
				g := serve(t, f, func(cfg *Config) { cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
				leave(t, g)
				for range howMany(acks) {
					release()
				}
				eventually(t, "records are missing", func() bool { return f.recordsIn("events", 0) == howMany(acks) })
			})
		}
	}
}

// A batch of a transaction of version 1 that waits for its leader, or for those before it, when its
// client leaves is not appended any more: its sequence number may be the next one's first.
func TestBatchesOfTransactionsOfWhoLeaves(t *testing.T) {
	f := newFake(t, "events")
	began, ended := make(chan struct{}, 2), make(chan error, 2)
	f.append = func(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
	g := serve(t, f, nil)
	c := g.dial()
	for sequence := range int32(2) {
		req := produceAt(11, f, "events", 0, transactionalBatch(7, 0, sequence, "x"))
		req.TransactionID, req.TimeoutMillis = kmsg.StringPtr("txn-1"), 300_000
		c.send(encode(sequence, req))
	}
	<-began
	c.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is appended for a client that is gone")
	}
	if len(began) > 0 {
		t.Error("the one behind it is appended, too")
	}
}

func transactionalBatch(producer int64, epoch int16, sequence int32, values ...string) []byte {
	b := bytes.Clone(producerBatch(producer, epoch, sequence, values...))
	b[22] |= 0x10
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// waitingCoordinators have every request wait until it is told to go on, or its context ends.
type waitingCoordinators struct {
	*fakeCluster
	asked, goOn chan struct{}
	ended       chan kmsg.Key // whose context has ended
}

func (w waitingCoordinators) Coordinate(ctx context.Context, shard int, client coordinator.Client, req kmsg.Request) (kmsg.Response, error) {
	w.asked <- struct{}{}
	select {
	case <-w.goOn:
		return w.fakeCluster.Coordinate(ctx, shard, client, req)
	case <-ctx.Done():
		w.ended <- kmsg.Key(req.Key())
		return nil, ctx.Err()
	}
}

// A consumer that commits, leaves its group and is gone at once, with answers unread, has committed
// and left. Nobody waits for others in a group for who is gone.
func TestAConsumerThatLeavesAtOnce(t *testing.T) {
	f := newFake(t, "events")
	w := waitingCoordinators{f, make(chan struct{}), make(chan struct{}), make(chan kmsg.Key, 3)}
	c := serve(t, w, nil).dial()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.SessionTimeoutMillis, join.ProtocolType = "others", 10_000, "consumer"
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 2, "readers", -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = "more", "m"
	c.send(slices.Concat(encode(1, join), encode(2, commit), encode(3, leave)))
	for range 3 {
		<-w.asked
	}
	if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if key := <-w.ended; key != kmsg.JoinGroup {
		t.Errorf("%s ends with the connection", key.Name())
	}
	close(w.goOn)
	eventually(t, "nothing was committed", func() bool {
		return f.committed(t, "readers", "events", 0) == 1
	})
	if len(w.ended) > 0 {
		t.Errorf("%s ends with the connection", (<-w.ended).Name())
	}
}

// committed asks the coordinator itself for an offset.
func (f *fakeCluster) committed(t *testing.T, group, topic string, partition int32) int64 {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{partition}}}}}
	req.Version, _ = coordinator.Version(req.Key())
	resp, err := f.Coordinate(t.Context(), coordinator.ShardOf(group), coordinator.Client{}, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.OffsetFetchResponse).Groups[0].Topics[0].Partitions[0].Offset
}
