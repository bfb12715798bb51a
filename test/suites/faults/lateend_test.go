package faults

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A client of version 1 asks a node that stands still to commit, gives it up, has another node
// commit, and begins the next transaction, which has the same epoch. When the node goes on it finds
// the request, and the end of its connection behind it and behind another request, which it does
// not read before: nobody waits for the answer, and the next transaction stays open.
func TestALateEndOfAFormerTransaction(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true})
	create(t, c, "late", 1)
	for i, still := range c.Nodes {
		other := c.Nodes[(i+1)%3]
		p := &oldProducer{t: t, id: "late-" + still.ID, topic: "late"}
		cl, err := kgo.NewClient(kgo.SeedBrokers(other.Addr()), kgo.MaxVersions(kversion.V3_8_0()))
		must(t, err)
		defer cl.Close()
		p.client = cl
		p.init()
		p.add()
		conn, err := net.Dial("tcp", still.Addr())
		must(t, err)
		must(t, still.Pause())
		for i, req := range []kmsg.Request{p.end(true), kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest()} {
			_, err = conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, int32(i)))
			must(t, err)
		}
		must(t, conn.Close())
		p.ask(p.end(true))
		p.add()
		must(t, still.Resume())
		must(t, still.WaitReady(patience))
		// A request that came to the node later than the late one, by the same way.
		through, err := kgo.NewClient(kgo.SeedBrokers(still.Addr()), kgo.MaxVersions(kversion.V3_8_0()))
		must(t, err)
		defer through.Close()
		p.client = through
		if state := p.state(); state != "Ongoing" {
			t.Errorf("%s stood still: the next transaction is %s", still.ID, state)
		}
		p.ask(p.end(false))
	}
}

// oldProducer is a transactional producer of version 1, by single requests.
type oldProducer struct {
	t         *testing.T
	client    *kgo.Client
	id, topic string
	producer  int64
	epoch     int16
}

// ask asks until the answer is not "again", and fails if it is another error.
func (p *oldProducer) ask(req kmsg.Request) kmsg.Response {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		resp, err := p.client.Request(ctx, req)
		if ctx.Err() != nil {
			must(p.t, err)
		}
		var code int16
		switch resp := resp.(type) {
		case *kmsg.InitProducerIDResponse:
			code = resp.ErrorCode
		case *kmsg.EndTxnResponse:
			code = resp.ErrorCode
		case *kmsg.AddPartitionsToTxnResponse:
			code = resp.Topics[0].Partitions[0].ErrorCode
		case *kmsg.DescribeTransactionsResponse:
			code = resp.TransactionStates[0].ErrorCode
		}
		switch told := kerr.ErrorForCode(code); {
		case err != nil: // a node that has just stood still sends its clients to others
		case told == nil:
			return resp
		case told == kerr.ConcurrentTransactions: // the one before is being ended
		case !kerr.IsRetriable(told):
			p.t.Fatalf("%s of %s: %v", strings.TrimPrefix(kmsg.NameForKey(req.Key()), "kmsg."), p.id, told)
		}
		select {
		case <-ctx.Done():
			p.t.Fatal(ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *oldProducer) init() {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &p.id, int32(patience.Milliseconds())
	resp := p.ask(req).(*kmsg.InitProducerIDResponse)
	p.producer, p.epoch = resp.ProducerID, resp.ProducerEpoch
}

// add begins a transaction.
func (p *oldProducer) add() {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.id, p.producer, p.epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: p.topic, Partitions: []int32{0}}}
	p.ask(req)
}

func (p *oldProducer) end(commit bool) *kmsg.EndTxnRequest {
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = 3, p.id, p.producer, p.epoch, commit
	return req
}

func (p *oldProducer) state() string {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{p.id}
	return p.ask(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0].State
}
