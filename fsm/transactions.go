package fsm

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// This file holds what a partition makes of transactions (KIP-98). A transaction of a producer is
// open from its first transactional batch to the next marker of that producer, as Kafka's followers
// read a log (ProducerAppendInfo with AppendOrigin.REPLICATION). What may get into the log is
// judged by the proposer (ProducersAhead); here it is recorded as it is found.

// MaxOpenTransactions bounds the transactions that are open in a partition at once, so that
// others than those who have one are remembered as well. Kafka has no such bound, and its brokers'
// memory is what there is. Who may have how many of them is ProducersAhead's affair.
const MaxOpenTransactions = MaxTransactional / 2

// AbortedTransaction is a transaction whose records readers of committed ones leave out.
type AbortedTransaction struct {
	ProducerID int64
	First      Offset // of its first record
	Last       Offset // of its marker
	// LastStable is the last stable offset behind the marker: all transactions that have a record
	// below it have ended.
	LastStable Offset
}

// OpenTransaction is a transaction that has not ended here.
type OpenTransaction struct {
	ProducerID int64
	First      Offset // of its first record
	Since      int64  // when that was appended, by the clock of the leader then, ms since epoch
}

// LastStable is the first offset that readers of committed records must not have yet: that of the
// first record of an open transaction, but no less than the log start; without any the next offset.
func (p *PartitionState) LastStable() Offset {
	if n := p.producers.open.oldest; n != nil {
		return max(p.logStart, n.state.First)
	}
	return p.next
}

// OpenTransactions counts the transactions that are open here, at most MaxOpenTransactions.
func (p *PartitionState) OpenTransactions() int { return p.producers.open.n }

// Open gives the transactions that are open here, in the order of their first offsets.
func (p *PartitionState) Open() []OpenTransaction {
	open := make([]OpenTransaction, 0, p.producers.open.n)
	for n := p.producers.open.oldest; n != nil; n = n.newer {
		open = append(open, n.state.open())
	}
	return open
}

// OldestOpen gives the first of Open; false: none is.
func (p *PartitionState) OldestOpen() (o OpenTransaction, ok bool) {
	n := p.producers.open.oldest
	if n == nil {
		return o, false
	}
	return n.state.open(), true
}

func (p *ProducerState) open() OpenTransaction { return OpenTransaction{p.ID, p.First, p.Since} }

// Aborted gives the aborted transactions that are not dropped, in the order of their markers,
// without those whose marker is below the log start. What was given never changes, and must not be
// changed.
func (p *PartitionState) Aborted() []AbortedTransaction {
	return p.aborted[:len(p.aborted):len(p.aborted)]
}

// DropAborted forgets the aborted transactions whose marker is below before. Whoever calls it has
// kept them elsewhere, or nobody can read there any more.
func (p *PartitionState) DropAborted(before Offset) {
	n := 0
	for n < len(p.aborted) && p.aborted[n].Last < before {
		n++
	}
	if p.aborted = p.aborted[n:]; len(p.aborted) == 0 {
		p.aborted = nil
	}
}

// endTransaction takes a good control batch, which has its place at next, into what is known of its
// producer. The error says why it should not be in the log.
func (p *PartitionState) endTransaction(b kafkaproto.Batch, at int64) (breach error) {
	h := b.Header()
	p.producers.expire(at)
	m, err := kafkaproto.ParseMarker(b)
	if err != nil {
		return nil // it ends nothing, as readers see it
	}
	n, known := p.producers.take(h)
	marker := Marker{ProducerID: h.ProducerID, Epoch: h.ProducerEpoch, Number: m.CoordinatorEpoch, Commit: m.Commit}
	if known {
		breach = n.state.JudgeMarker(marker)
	}
	wasOpen, first := n.state.Open, n.state.First
	if wasOpen {
		p.producers.open.remove(n)
	}
	n.state.end(marker, at)
	p.producers.list(n)
	if wasOpen && !m.Commit {
		stable := p.next + 1
		if open := p.producers.open.oldest; open != nil {
			stable = open.state.First
		}
		p.aborted = append(p.aborted, AbortedTransaction{h.ProducerID, first, p.next, stable})
	}
	return breach
}

// JudgeMarker says why a marker must not follow what is known of the producer; nil: it may.
// The errors are ErrTransactionCoordinatorFenced, for a number that has been here, and
// ErrInvalidProducerEpoch, for the marker of a transaction before the open one.
func (p *ProducerState) JudgeMarker(m Marker) error {
	if p.Ended != 0 && m.Number != p.Ended && !m.Follows(p.Ended) {
		return fmt.Errorf("%w: transaction %d of producer %d, %d has been ended", outcome.ErrTransactionCoordinatorFenced, m.Number, p.ID, p.Ended)
	}
	if p.Open && m.Epoch < p.Epoch {
		return fmt.Errorf("%w: a transaction of producer %d with epoch %d is open, the marker has %d", outcome.ErrInvalidProducerEpoch, p.ID, p.Epoch, m.Epoch)
	}
	return nil
}

// end takes a marker that is in the log.
func (p *ProducerState) end(m Marker, at int64) {
	if m.Epoch > p.Epoch {
		p.Epoch, p.count = m.Epoch, 0
	}
	if m.Number != 0 && (p.Ended == 0 || m.Follows(p.Ended)) {
		p.Ended = m.Number
	}
	p.Open, p.First, p.Since = false, 0, 0
	p.LastAppend = at
}

// transaction opens the transaction of a batch at base, or says what is wrong with it, and puts n
// into its list; it is in none unless it has an open transaction.
func (t *producerTable) transaction(n *producerNode, h kafkaproto.BatchHeader, base Offset, at int64) (breach error) {
	if n.state.Open {
		if !h.Transactional() {
			breach = fmt.Errorf("%w: a batch of producer %d is in no transaction, and one is open", outcome.ErrInvalidTxnState, n.state.ID)
		}
		return breach
	}
	if h.Transactional() {
		if t.open.n < MaxOpenTransactions {
			n.state.Open, n.state.First, n.state.Since = true, base, at
		} else {
			breach = fmt.Errorf("%w: more than %d transactions are open", outcome.ErrInvalidTxnState, MaxOpenTransactions)
		}
	}
	t.list(n)
	return breach
}

// transactional reports whether there is something of transactions in the state.
func (p *PartitionState) transactional() bool {
	return p.producers.open.n+p.producers.ended.n+len(p.aborted) > 0
}

// Aborted transactions in a snapshot: their count, then of each producer id, offset of the marker
// less that of the one before, less the first offset, and less the last stable offset (signed).

// minAborted is how many bytes one of them takes at least.
const minAborted = 4

func snapshotAborted(b []byte, rows []AbortedTransaction) []byte {
	b = binary.AppendUvarint(b, uint64(len(rows)))
	before := Offset(0)
	for _, row := range rows {
		b = binary.AppendUvarint(b, uint64(row.ProducerID))
		b = binary.AppendUvarint(b, uint64(row.Last-before))
		b = binary.AppendUvarint(b, uint64(row.Last-row.First))
		b = binary.AppendVarint(b, int64(row.Last-row.LastStable))
		before = row.Last
	}
	return b
}

// restoreAborted reads what snapshotAborted wrote; r.bad says that it is no such thing.
func restoreAborted(r *numbers) []AbortedTransaction {
	count := r.atMost(uint64(len(r.b) / minAborted))
	if count == 0 {
		return nil
	}
	rows := make([]AbortedTransaction, 0, count)
	before := Offset(0)
	for range count {
		row := AbortedTransaction{ProducerID: r.positive()}
		further, length := r.positive(), r.positive()
		if further > math.MaxInt64-int64(before) || further == 0 || length == 0 {
			r.fail()
		}
		row.Last = before + Offset(further)
		if int64(row.Last) < length {
			r.fail()
		}
		row.First = row.Last - Offset(length)
		if behind := r.signed(); behind < -1 || behind > int64(row.Last) {
			r.fail()
		} else {
			row.LastStable = row.Last - Offset(behind)
		}
		if r.bad {
			return nil
		}
		rows, before = append(rows, row), row.Last
	}
	return rows
}
