package oracle

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// txn is a producer with a transactional id. It knows what it was told of its producer id and
// epoch.
type txn struct {
	t     *T
	id    string
	pid   int64
	epoch int16
}

// txn makes one, and waits until the broker coordinates transactions.
func (t *T) txn() *txn {
	x := &txn{t: t, id: t.Name(), pid: -1, epoch: -1}
	t.until("a coordinator of transactions", func() bool {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorKey, req.CoordinatorType = 2, x.id, 1
		if t.ask(req).(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
			return false
		}
		describe := kmsg.NewPtrDescribeTransactionsRequest()
		describe.TransactionalIDs = []string{x.id}
		return t.ask(describe).(*kmsg.DescribeTransactionsResponse).TransactionStates[0].ErrorCode == kerr.TransactionalIDNotFound.Code
	})
	return x
}

// settled asks until the answer is another than that the last transaction is not over, or that the
// coordinator is not ready.
func (x *txn) settled(req kmsg.Request, code func(kmsg.Response) int16) kmsg.Response {
	var resp kmsg.Response
	x.t.until("an answer about a transaction", func() bool {
		resp = x.t.ask(req)
		switch kerr.ErrorForCode(code(resp)) {
		case kerr.ConcurrentTransactions, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress:
			return false
		}
		return true
	})
	return resp
}

// named is a producer id as it is called in the answers: the first is a, the next b.
func (x *txn) named(pid int64) string {
	if pid == -1 {
		return "none"
	}
	text := fmt.Sprint(pid)
	if x.t.aliases[text] == "" {
		n := 0
		for _, name := range x.t.aliases {
			if len(name) == len("producer a") && name[:9] == "producer " {
				n++
			}
		}
		x.t.Alias(text, "producer "+string(rune('a'+n)))
	}
	return x.t.aliases[text]
}

func (x *txn) initAs(version int16, timeout int32, pid int64, epoch int16) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = version, &x.id, timeout, pid, epoch
	resp := x.settled(req, func(r kmsg.Response) int16 { return r.(*kmsg.InitProducerIDResponse).ErrorCode }).(*kmsg.InitProducerIDResponse)
	x.t.Say("InitProducerID v%d: %s %s epoch %d", version, errorName(resp.ErrorCode), x.named(resp.ProducerID), resp.ProducerEpoch)
	if resp.ErrorCode == 0 {
		x.pid, x.epoch = resp.ProducerID, resp.ProducerEpoch
	}
}

func (x *txn) init()                { x.initAs(4, 60_000, -1, -1) }
func (x *txn) recover(epoch int16)  { x.initAs(4, 60_000, x.pid, epoch) }
func (x *txn) other(id string) *txn { return &txn{t: x.t, id: id, pid: x.pid, epoch: x.epoch} }
func (x *txn) at(epoch int16) *txn  { return &txn{t: x.t, id: x.id, pid: x.pid, epoch: epoch} }
func (x *txn) of(pid int64) *txn    { return &txn{t: x.t, id: x.id, pid: pid, epoch: x.epoch} }

// add adds partitions 0 of topics as a client does (to version 3), or as a leader does (from 4).
func (x *txn) add(version int16, topics ...string) { x.added(version, false, topics...) }
func (x *txn) verify(topics ...string)             { x.added(4, true, topics...) }

func (x *txn) added(version int16, verify bool, topics ...string) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = version, x.id, x.pid, x.epoch
	batched := kmsg.NewAddPartitionsToTxnRequestTransaction()
	batched.TransactionalID, batched.ProducerID, batched.ProducerEpoch, batched.VerifyOnly = x.id, x.pid, x.epoch, verify
	for _, topic := range topics {
		req.Topics = append(req.Topics, kmsg.AddPartitionsToTxnRequestTopic{Topic: topic, Partitions: []int32{0}})
		batched.Topics = append(batched.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: topic, Partitions: []int32{0}})
	}
	req.Transactions = append(req.Transactions, batched)
	codes := func(r kmsg.Response) map[string]int16 {
		codes := map[string]int16{}
		resp := r.(*kmsg.AddPartitionsToTxnResponse)
		for _, t := range resp.Topics {
			codes[t.Topic] = t.Partitions[0].ErrorCode
		}
		for _, txn := range resp.Transactions {
			for _, t := range txn.Topics {
				codes[t.Topic] = t.Partitions[0].ErrorCode
			}
		}
		return codes
	}
	resp := x.settled(req, func(r kmsg.Response) int16 {
		for _, code := range codes(r) {
			return code
		}
		return 0
	})
	what := "AddPartitionsToTxn"
	if verify {
		what = "verify by AddPartitionsToTxn"
	}
	line := fmt.Sprintf("%s v%d: %s", what, version, errorName(resp.(*kmsg.AddPartitionsToTxnResponse).ErrorCode))
	for i, topic := range topics {
		if code, ok := codes(resp)[topic]; ok {
			line += fmt.Sprintf(", topic %d %s", i+1, errorName(code))
		}
	}
	x.t.Say("%s", line)
}

func (x *txn) offsets(version int16, group string) {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = version, x.id, x.pid, x.epoch, group
	resp := x.settled(req, func(r kmsg.Response) int16 { return r.(*kmsg.AddOffsetsToTxnResponse).ErrorCode })
	x.t.Say("AddOffsetsToTxn v%d: %s", version, errorName(resp.(*kmsg.AddOffsetsToTxnResponse).ErrorCode))
}

func (x *txn) end(version int16, commit bool) {
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = version, x.id, x.pid, x.epoch, commit
	resp := x.settled(req, func(r kmsg.Response) int16 { return r.(*kmsg.EndTxnResponse).ErrorCode }).(*kmsg.EndTxnResponse)
	what := "abort"
	if commit {
		what = "commit"
	}
	line := fmt.Sprintf("EndTxn v%d, %s: %s", version, what, errorName(resp.ErrorCode))
	if version >= 5 {
		line += fmt.Sprintf(" %s epoch %d", x.named(resp.ProducerID), resp.ProducerEpoch)
		if resp.ErrorCode == 0 {
			x.pid, x.epoch = resp.ProducerID, resp.ProducerEpoch
		}
	}
	x.t.Say("%s", line)
}

// state writes down what DescribeTransactions says, once nothing is on its way.
func (x *txn) state() {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{x.id}
	var s kmsg.DescribeTransactionsResponseTransactionState
	x.t.until("a state of rest", func() bool {
		s = x.t.ask(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0]
		return s.State != "PrepareCommit" && s.State != "PrepareAbort"
	})
	if s.ErrorCode != 0 {
		x.t.Say("DescribeTransactions: %s %q timeout %d start %d producer %d epoch %d", errorName(s.ErrorCode), s.State, s.TimeoutMillis, s.StartTimestamp, s.ProducerID, s.ProducerEpoch)
		return
	}
	start := "started"
	if s.StartTimestamp < 0 {
		start = fmt.Sprint("start ", s.StartTimestamp)
	}
	x.t.Say("DescribeTransactions: %s %q timeout %d %s %s epoch %d, %d topics", errorName(s.ErrorCode), s.State, s.TimeoutMillis, start, x.named(s.ProducerID), s.ProducerEpoch, len(s.Topics))
}

// list writes down what ListTransactions says of the ids that begin with x's.
func (x *txn) list(pattern string, edit func(*kmsg.ListTransactionsRequest)) {
	req := kmsg.NewPtrListTransactionsRequest()
	req.Version, req.DurationFilterMillis = 2, -1
	if pattern != "" {
		pattern = x.id + pattern
		req.TransactionalIDPattern = &pattern
	}
	edit(req)
	resp := x.t.ask(req).(*kmsg.ListTransactionsResponse)
	line := "ListTransactions: " + errorName(resp.ErrorCode)
	slices.SortFunc(resp.TransactionStates, func(a, b kmsg.ListTransactionsResponseTransactionState) int {
		return strings.Compare(a.TransactionalID, b.TransactionalID) // Kafka has no order
	})
	for _, s := range resp.TransactionStates {
		line += fmt.Sprintf(" %s of %s", s.TransactionState, x.named(s.ProducerID))
	}
	for _, s := range resp.UnknownStateFilters {
		line += " unknown " + s
	}
	x.t.Say("%s", line)
}

var transactionCases = []Case{
	{"InitProducerID that is refused", func(t *T) {
		x := t.txn()
		for _, timeout := range []int32{0, -1, 1, 900_000, 900_001, math.MaxInt32} {
			x.initAs(4, timeout, -1, -1)
		}
		x.initAs(4, 60_000, x.pid, -1)
		x.initAs(4, 60_000, -1, 0)
		for _, version := range []int16{3, 4, 5} {
			x.initAs(version, 60_000, x.pid, 77)
			x.initAs(version, 60_000, x.pid+1000, 0)
		}
		x.other("").init()
	}},
	{"InitProducerID of who recovers", func(t *T) {
		x := t.txn()
		x.initAs(4, 60_000, 12345, 7) // an id that is not known
		x.recover(x.epoch)
		x.recover(x.epoch)
		x.recover(x.epoch - 1)
		x.recover(x.epoch - 1)
		x.recover(x.epoch - 2)
		x.recover(x.epoch + 1)
		x.init()
		x.recover(x.epoch - 1)
		topic := t.Topic()
		x.add(3, topic)
		x.recover(x.epoch)
		x.state()
	}},
	{"version 1", func(t *T) {
		x, topic, other := t.txn(), t.Topic(), t.Topic()
		x.init()
		x.state()
		x.end(4, true)
		x.end(4, false)
		x.add(3, topic)
		x.add(3, topic, other)
		x.offsets(3, t.Name())
		x.state()
		x.verify(topic, other)
		x.end(4, true)
		x.end(4, true)
		x.end(4, false)
		x.state()
		x.verify(topic)
		x.add(0, topic)
		x.end(0, false)
		x.end(0, false)
		x.end(0, true)
		x.state()
	}},
	{"version 1, what is refused", func(t *T) {
		x, topic := t.txn(), t.Topic()
		x.add(3, topic)
		x.offsets(3, "group")
		x.end(4, true)
		x.init()
		for _, version := range []int16{0, 1, 2, 3} {
			x.at(9).add(version, topic)
			x.at(9).offsets(version, "group")
			x.at(9).end(version, true)
		}
		x.at(-1).add(3, topic)
		x.of(x.pid+1000).add(3, topic)
		x.of(x.pid+1000).offsets(3, "group")
		x.of(x.pid+1000).end(4, true)
		x.other("nobody").add(3, topic)
		x.other("").add(3, topic)
		x.other("").offsets(3, "group")
		x.other("").end(4, true)
		x.add(3, topic, "no-such-topic")
		x.state()
		x.add(3, topic)
		x.at(9).verify(topic)
		x.of(x.pid + 1000).verify(topic)
		x.other("nobody").verify(topic)
		x.other("").verify(topic)
		x.offsets(3, "")
	}},
	{"version 2", func(t *T) {
		x, topic, other := t.txn(), t.Topic(), t.Topic()
		x.init()
		x.add(5, topic)
		x.add(4, other)
		x.state()
		first := *x
		x.end(5, true)
		x.state()
		again := first
		again.end(5, true)
		again = first
		again.end(5, false)
		x.end(5, true)
		second := *x
		x.end(5, false)
		x.state()
		again = second
		again.end(5, false)
		again = second
		again.end(5, true)
		again = first
		again.end(5, false)
		x.at(x.epoch+5).end(5, false)
		x.add(5, topic)
		x.end(5, false)
		x.state()
	}},
	{"version 2 without a transaction", func(t *T) {
		x := t.txn()
		x.end(5, false)
		x.init()
		x.end(5, true)
		first := *x
		x.end(5, false)
		x.state()
		first.end(5, false)
		x.end(5, false)
		x.init()
		x.at(x.epoch-1).end(5, false)
		x.at(x.epoch-1).end(5, true)
		x.of(x.pid+1000).end(5, false)
		x.other("").end(5, false)
		x.end(5, false)
		x.state()
	}},
	{"both versions", func(t *T) {
		x, topic := t.txn(), t.Topic()
		x.init()
		x.add(3, topic)
		x.end(5, true)
		x.state()
		x.add(5, topic)
		x.end(4, true)
		x.end(4, true)
		x.end(5, true)
		x.state()
		x.end(5, false)
		x.state()
		x.end(4, false)
		x.end(4, true)
	}},
	{"who takes the id", func(t *T) {
		x, topic := t.txn(), t.Topic()
		x.init()
		old := *x
		x.add(3, topic)
		x.init()
		x.state()
		old.add(3, topic)
		old.end(4, true)
		old.end(5, true)
		old.end(5, false)
		old.recover(old.epoch)
		x.add(5, topic)
		x.end(5, true)
		x.state()
	}},
	{"a timeout", func(t *T) {
		x, topic := t.txn(), t.Topic()
		x.initAs(4, 1000, -1, -1)
		x.add(5, topic)
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{x.id}
		t.until("the end of a timeout", func() bool {
			time.Sleep(100 * time.Millisecond)
			return t.ask(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0].State == "CompleteAbort"
		})
		x.state()
		x.add(3, topic)
		x.verify(topic)
		x.end(4, true)
		x.end(4, false)
		x.at(x.epoch).end(5, true)
		x.at(x.epoch).end(5, false)
		x.recover(x.epoch)
		x.state()
	}},
	{"lists", func(t *T) {
		x, topic := t.txn(), t.Topic()
		open, done := x.other(x.id+"-open"), x.other(x.id+"-over")
		x.init()
		done.init()
		open.init()
		open.add(5, topic)
		done.add(5, topic)
		done.end(5, true)
		done.state()
		for _, pattern := range []string{".*", "-.*", "-o", "-o...", "-(open|over)", "(", "a)(b", "(?=x)"} {
			x.list(pattern, func(*kmsg.ListTransactionsRequest) {})
		}
		for _, state := range []string{"Ongoing", "Empty", "CompleteCommit", "Dead", "PrepareEpochFence", "ongoing", "", "no-such"} {
			x.list(".*", func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{state} })
		}
		x.list(".*", func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Ongoing", "none"} })
		x.list(".*", func(r *kmsg.ListTransactionsRequest) { r.ProducerIDFilters = []int64{open.pid} })
		x.list(".*", func(r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = 3_600_000 })
		x.other("nobody-" + x.id).state()
		x.other("").state()
	}},
}
