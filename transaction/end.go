package transaction

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/transactions"
)

func (c *Coordinator) endTxn(ctx context.Context, client Client, req *kmsg.EndTxnRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if resp.ErrorCode = c.refused(req.TransactionalID); resp.ErrorCode != 0 {
		return resp, nil
	}
	from, decide := identity{req.ProducerID, req.ProducerEpoch}, decideEnd
	if client.Version >= 5 {
		decide = decideEnd2
	}
	s, err := c.askToEnd(ctx, req.TransactionalID, func(v view) step { return decide(v, from, req.Commit) })
	if err != nil {
		return nil, err
	}
	resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = told(s.code, client.Version, 2), s.told.producerID, s.told.epoch
	return resp, nil
}

func prepared(commit bool) transactions.Phase {
	if commit {
		return transactions.PrepareCommit
	}
	return transactions.PrepareAbort
}

// complete is what follows prepared once all markers have arrived.
func complete(p transactions.Phase) transactions.Phase {
	if p == transactions.PrepareCommit {
		return transactions.CompleteCommit
	}
	return transactions.CompleteAbort
}

func ended(commit bool) func(*Counters) counter {
	return func(c *Counters) counter {
		if commit {
			return &c.Committed
		}
		return &c.Aborted
	}
}

// decideEnd is EndTxn of version 1: the epoch stays. A repeated request is told that it has
// happened.
func decideEnd(v view, from identity, commit bool) step {
	p := v.producer
	switch {
	case v.revision == 0 || p.ProducerID != from.producerID:
		return refuse(kerr.InvalidProducerIDMapping)
	case p.Epoch != from.epoch:
		return refuse(kerr.ProducerFenced)
	}
	switch p.Phase {
	case transactions.Ongoing:
		p.Phase, p.Version, p.Previous, p.Updated = prepared(commit), 0, p.ProducerID, v.now
		return step{set: &p, told: none, counts: ended(commit)}
	case prepared(commit):
		return step{waits: true}
	case complete(prepared(commit)):
		return step{told: none}
	}
	return refuse(kerr.InvalidTxnState)
}

// earlyCommit is for how long, in ms, who commits a transaction that has not begun is told to ask
// again. Java's producer (seen with 4.3.1) may ask before it has sent the first batch: its sender
// looks whether there are batches, and then takes the request for the end of the transaction
// (Sender.maybeSendAndPollTransactionalRequest), and the application may have sent records and
// asked for the commit in between. It looks again before it repeats the request, so any answer that
// is worth another try puts it right, and INVALID_TXN_STATE ends the producer. Kafka tells it
// CONCURRENT_TRANSACTIONS while the transaction before is not everywhere over, INVALID_TXN_STATE
// from then on.
const earlyCommit = 1000

// decideEnd2 is EndTxn of version 2 (KIP-890): every transaction has an epoch of its own, so the
// epoch tells a repeated request from that for the next transaction. One that aborts where no
// transaction is makes sure that there will be none of the epoch, and gives the next.
func decideEnd2(v view, from identity, commit bool) step {
	p := v.producer
	if v.revision == 0 {
		return refuse(kerr.InvalidProducerIDMapping)
	}
	again := from == identity{p.ProducerID, p.Epoch - 1} && !p.Renewed()
	current := from == identity{p.ProducerID, p.Epoch}
	if p.Phase.Preparing() {
		switch {
		case !again && from == after(p) && commit && !v.next.begun: // the next one's
			return refuse(kerr.ConcurrentTransactions)
		case !again && from == after(p):
			return step{waits: true}
		case from.producerID != p.ProducerID:
			return refuse(kerr.InvalidProducerIDMapping)
		case !again:
			return refuse(kerr.ProducerFenced)
		case p.Phase != prepared(commit):
			return refuse(otherwise(commit))
		}
		return step{waits: true}
	}
	completed := p.Phase == transactions.CompleteCommit || p.Phase == transactions.CompleteAbort
	if completed && p.Epoch == 0 && from == (identity{p.Previous, lastEpoch}) {
		again = true
	}
	switch {
	case from.producerID != p.ProducerID && !again:
		return refuse(kerr.InvalidProducerIDMapping)
	case !current && !(completed && again):
		return refuse(kerr.ProducerFenced)
	case p.Phase == transactions.Ongoing:
		s := bump(v, prepared(commit))
		s.counts = ended(commit)
		return s
	case completed && again:
		if p.Phase != complete(prepared(commit)) {
			return refuse(otherwise(commit))
		}
		return step{told: identity{p.ProducerID, p.Epoch}}
	case commit && p.Updated <= v.now && v.now < p.Updated+earlyCommit:
		return refuse(kerr.ConcurrentTransactions)
	case commit:
		return refuse(kerr.InvalidTxnState)
	}
	return bump(v, transactions.CompleteAbort)
}

// otherwise is what the end of a transaction that has ended the other way is told. No client
// commits what it has aborted itself, so the coordinator has: the timeout has passed, or another
// producer has come. PRODUCER_FENCED is what Kafka Streams takes for that, and goes on; it dies of
// INVALID_TXN_STATE (KAFKA-20785).
func otherwise(commit bool) *kerr.Error {
	if commit {
		return kerr.ProducerFenced
	}
	return kerr.InvalidTxnState
}

// decideFence aborts the ongoing transaction with an epoch that its producer does not have. Once it
// is over the producer may still learn it by its own (KIP-890, InitProducerId with LastEpoch).
func decideFence(v view) step { return bump(v, transactions.PrepareAbort) }

// bump ends the epoch, and the producer id with it if it was the last (KAFKA-18660, KAFKA-20090).
func bump(v view, phase transactions.Phase) step {
	p := v.producer
	if p.Epoch >= lastEpoch && v.newID == -1 {
		return step{needsID: true}
	}
	if p.Epoch >= lastEpoch {
		p.Next = v.newID
	}
	if !p.Phase.Open() {
		p.Start = v.now // there was no transaction
	}
	p.LastEpoch, p.Epoch = p.Epoch, min(p.Epoch, math.MaxInt16-1)+1
	p.Version, p.Previous, p.Phase, p.Updated = 2, p.ProducerID, phase, v.now
	next := after(p)
	if !phase.Open() {
		p = completed(p, v.now)
	}
	return step{set: &p, told: next}
}

// after is the producer id and epoch once the transaction that is decided is over.
func after(p transactions.Producer) identity {
	if p.Next != -1 {
		return identity{p.Next, 0}
	}
	return identity{p.ProducerID, p.Epoch}
}

// completed is what becomes of p once all markers have arrived.
func completed(p transactions.Producer, now int64) transactions.Producer {
	if p.Phase.Preparing() {
		p.Phase = complete(p.Phase)
	}
	p.Previous, p.Updated = p.ProducerID, now
	if p.Next != -1 {
		p.ProducerID, p.Epoch, p.Next, p.Number = p.Next, 0, -1, 0
	}
	if p.LastEpoch == transactions.Renews {
		p.Epoch, p.LastEpoch = transactions.UsedUp, -1
	}
	return p
}
