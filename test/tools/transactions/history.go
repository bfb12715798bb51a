package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// fate is what the producer of a transaction was told.
type fate int

const (
	open      fate = iota
	unknown        // the commit may have taken place or not
	committed      // the commit was acknowledged
	aborted        // the commit was never asked for
)

// isolation is that of a reader.
type isolation int

const (
	readUncommitted isolation = iota
	readCommitted
)

// transaction is what is known of a transaction of the load append.
type transaction struct {
	partitions []int32 // of its records
	needed     int     // so many, from the first on, are there or none is; the others may be
	fate       fate
	asked      time.Time // when its commit was asked for; zero: never
}

// work is what a worker's committed transaction consumed and produced.
type work struct{ consumed, produced []message }

// history is what producers were told and readers were given, and the anomalies in it, by Jepsen's
// names where there is one:
//
//	aborted-read (G1a)     a record of a transaction whose commit nobody asked for was read
//	intermediate-read (G1b) a transaction's records are not in the order they were written in
//	cyclic-read (G1c)      workers' transactions read, round a circle, what each other wrote
//	precommitted-read      read_committed gave a record before its commit was asked for
//	lost-write             a record of a transaction whose commit was acknowledged is not there
//	torn                   a part of a transaction is there and a part is not
//	duplicate              a record is there twice
//	unwritten-read         a reader was given what nobody wrote
//	lost-message           a message of the ring did not get to its last hop
//	nonmonotonic-poll      a reader was given an offset again, or a lower one
//	nonmonotonic-send      two transactions of a producer are not in the order they ended in
//	int-poll-skip          a reader was not given an offset between two that it was given
//	unseen                 a reader was not given the end
//	unkept                 a producer kept asking, and a record was neither written nor refused
//	hanging-transaction    nobody has a transaction open, and readers of a partition wait for one
//	inconsistent-offsets   two readers were given different values at one offset
//
// Kafka does not order the writes of transactions that overlap, so write cycles (G0) are counted
// and are no anomaly.
type history struct {
	mu           sync.Mutex
	transactions map[txnID]*transaction
	reads        [2]map[place][]read // of those who followed, by isolation
	messages     map[message]bool    // put into the ring; true: surely
	arrived      map[int]int         // message by id: the highest hop that a reader was given
	works        []work
	givenUp      int // transactions of workers that were aborted with offsets in them
	found        map[string][]string
	cycles       int // G0, pairs
}

func newHistory() *history {
	h := &history{transactions: map[txnID]*transaction{}, messages: map[message]bool{}, arrived: map[int]int{}, found: map[string][]string{}}
	for i := range h.reads {
		h.reads[i] = map[place][]read{}
	}
	return h
}

// anomaly notes one; few of a kind are kept with their words.
func (h *history) anomaly(kind, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.anomalyLocked(kind, format, args...)
}

func (h *history) anomalyLocked(kind, format string, args ...any) {
	h.found[kind] = append(h.found[kind], fmt.Sprintf(format, args...))
}

func (h *history) begun(id txnID, partitions []int32) { h.begunWith(id, partitions, len(partitions)) }

// begunWith takes a transaction of which some records may be missing, and be there only with the
// others.
func (h *history) begunWith(id txnID, partitions []int32, needed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transactions[id] = &transaction{partitions: partitions, needed: needed}
}

// need says that more of a transaction's records have to be there.
func (h *history) need(id txnID, needed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transactions[id].needed = needed
}

func (h *history) committing(id txnID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transactions[id].asked = time.Now()
}

func (h *history) ended(id txnID, f fate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transactions[id].fate = f
}

func (h *history) committed() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.transactions {
		if t.fate == committed {
			n++
		}
	}
	return n
}

func (h *history) fed(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages[m] = false
}

func (h *history) fedSurely(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages[m] = true
}

// worked takes a worker's transaction that has ended.
func (h *history) worked(did bool, w work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if did {
		h.works = append(h.works, w)
	}
}

func (h *history) gaveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.givenUp++
}

// followed takes what a reader was given while all went on.
func (h *history) followed(level isolation, p place, r read) {
	if r.value == lastRecord {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[level][p] = append(h.reads[level][p], r)
	if level != readCommitted || p.topic == appendTopic {
		return
	}
	if m, ok := parseMessage(r.value); ok {
		h.arrived[m.id] = max(h.arrived[m.id], m.hop)
	}
}

// underWay is how many messages that are surely in the ring have not come to their last hop.
func (h *history) underWay(hops int) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for m, surely := range h.messages {
		if surely && h.arrived[m.id] < hops {
			n++
		}
	}
	return n
}

// caughtUp reports whether the followers of both levels have the last of what was read at the end.
func (h *history) caughtUp(final map[place][]read) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, reads := range h.reads {
		for p, all := range final {
			if len(all) == 0 {
				continue
			}
			if seen := reads[p]; len(seen) == 0 || seen[len(seen)-1].offset < all[len(all)-1].offset {
				return false
			}
		}
	}
	return true
}

func (h *history) good() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.found) == 0
}

// check looks for anomalies; final is all that is committed, as it was read at the end.
func (h *history) check(final map[place][]read, hops int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p, all := range final {
		h.checkOrder("the last reader", p, all)
	}
	for level, reads := range h.reads {
		who := [...]string{"the read_uncommitted reader", "the read_committed reader"}[level]
		for p, seen := range reads {
			h.checkOrder(who, p, seen)
			h.checkSame(who, isolation(level), p, seen, final[p])
			h.checkTimes(isolation(level), p, seen)
		}
	}
	h.checkAppended(final)
	h.checkRing(final, hops)
	h.checkCircle()
}

// checkOrder holds that a reader was given every offset once, in order.
func (h *history) checkOrder(who string, p place, seen []read) {
	for i := 1; i < len(seen); i++ {
		if seen[i].offset <= seen[i-1].offset {
			h.anomalyLocked("nonmonotonic-poll", "%s: %s gave offset %d after %d", p, who, seen[i].offset, seen[i-1].offset)
		}
	}
}

// checkSame holds what one reader was given against what was read at the end.
func (h *history) checkSame(who string, level isolation, p place, seen, final []read) {
	at := map[int64]string{}
	for _, r := range seen {
		if value, there := at[r.offset]; there && value != r.value {
			h.anomalyLocked("inconsistent-offsets", "%s offset %d: %s was given %q and %q", p, r.offset, who, value, r.value)
		}
		at[r.offset] = r.value
	}
	last := int64(-1)
	if len(seen) > 0 {
		last = seen[len(seen)-1].offset
	}
	is := map[int64]bool{}
	for _, r := range final {
		is[r.offset] = true
		value, there := at[r.offset]
		switch {
		case there && value != r.value:
			h.anomalyLocked("inconsistent-offsets", "%s offset %d: %s was given %q, the last reader %q", p, r.offset, who, value, r.value)
		case !there && r.offset < last:
			h.anomalyLocked("int-poll-skip", "%s: %s was not given offset %d (%s), and %d", p, who, r.offset, r.value, last)
		case !there:
			h.anomalyLocked("unseen", "%s: %s was never given offset %d (%s)", p, who, r.offset, r.value)
		}
	}
	if level != readCommitted {
		return
	}
	for _, r := range seen {
		if !is[r.offset] {
			h.anomalyLocked("inconsistent-offsets", "%s offset %d: %s was given %s, the last reader nothing", p, r.offset, who, r.value)
		}
	}
}

// checkTimes holds that a reader of what is committed is given nothing too early.
func (h *history) checkTimes(level isolation, p place, seen []read) {
	if level != readCommitted || p.topic != appendTopic {
		return
	}
	for _, r := range seen {
		a, ok := parseAppended(r.value)
		if !ok {
			continue
		}
		if t := h.transactions[a.txn]; t != nil && !t.asked.IsZero() && r.at.Before(t.asked) {
			h.anomalyLocked("precommitted-read", "%s offset %d: %s was read %v before its commit was asked for", p, r.offset, r.value, t.asked.Sub(r.at))
		}
	}
}

// checkAppended holds the topic of appended transactions against their fates.
func (h *history) checkAppended(final map[place][]read) {
	there := map[txnID]map[int]int{} // by record: how often
	order := map[int32][]txnID{}     // transactions by partition, as they begin there
	for p, all := range final {
		if p.topic != appendTopic {
			continue
		}
		last := map[txnID]int{}
		byProducer := map[int]int{}
		for _, r := range all {
			a, ok := parseAppended(r.value)
			t := h.transactions[a.txn]
			if !ok || t == nil || a.i >= len(t.partitions) || t.partitions[a.i] != p.partition {
				h.anomalyLocked("unwritten-read", "%s offset %d: %q", p, r.offset, r.value)
				continue
			}
			if there[a.txn] == nil {
				there[a.txn] = map[int]int{}
			}
			there[a.txn][a.i]++
			if i, before := last[a.txn]; !before {
				order[p.partition] = append(order[p.partition], a.txn)
			} else if a.i < i {
				h.anomalyLocked("intermediate-read (G1b)", "%s offset %d: record %d of %s behind record %d", p, r.offset, a.i, a.txn, i)
			}
			last[a.txn] = a.i
			if n, before := byProducer[a.txn.producer]; before && a.txn.number < n {
				h.anomalyLocked("nonmonotonic-send", "%s offset %d: %s behind transaction %d", p, r.offset, a.txn, n)
			}
			byProducer[a.txn.producer] = max(byProducer[a.txn.producer], a.txn.number)
			if t.fate == aborted {
				h.anomalyLocked("aborted-read (G1a)", "%s offset %d: %s, whose commit nobody asked for", p, r.offset, r.value)
			}
		}
	}
	for level, reads := range h.reads {
		if isolation(level) != readCommitted {
			continue
		}
		for p, seen := range reads {
			for _, r := range seen {
				if a, ok := parseAppended(r.value); ok && p.topic == appendTopic {
					if t := h.transactions[a.txn]; t == nil {
						h.anomalyLocked("unwritten-read", "%s offset %d: %q", p, r.offset, r.value)
					} else if t.fate == aborted {
						h.anomalyLocked("aborted-read (G1a)", "%s offset %d: %s, whose commit nobody asked for", p, r.offset, r.value)
					}
				}
			}
		}
	}
	for id, t := range h.transactions {
		found, needed := there[id], 0
		for i, times := range found {
			if times > 1 {
				h.anomalyLocked("duplicate", "record %d of %s is there %d times", i, id, times)
			}
			if i < t.needed {
				needed++
			}
		}
		switch {
		case t.fate == committed && needed < t.needed:
			h.anomalyLocked("lost-write", "%s is committed, and %d of its %d records are there", id, needed, t.needed)
		case len(found) > 0 && needed < t.needed && t.fate != aborted && !t.asked.IsZero():
			// One that was given up while it was written may have fewer than it would have had, and
			// was never committed.
			h.anomalyLocked("torn", "%d of %d records of %s are there", needed, t.needed, id)
		case len(found) > 0 && t.asked.IsZero() && t.fate != aborted:
			h.anomalyLocked("aborted-read (G1a)", "%s is there, and nobody asked for its commit", id)
		}
	}
	h.cycles = writeCycles(order)
}

// writeCycles counts pairs of transactions that stand in one order in one partition and in the
// other in another.
func writeCycles(order map[int32][]txnID) (n int) {
	const near = 20 // transactions that overlap begin near each other
	before := map[[2]txnID]bool{}
	for _, ids := range order {
		for i, a := range ids {
			for _, b := range ids[i+1 : min(len(ids), i+near)] {
				before[[2]txnID{a, b}] = true
			}
		}
	}
	for pair := range before {
		if before[[2]txnID{pair[1], pair[0]}] {
			n++
		}
	}
	return n / 2
}

// checkRing holds that each message is there once at each hop.
func (h *history) checkRing(final map[place][]read, hops int) {
	times := map[message]int{}
	for p, all := range final {
		if p.topic == appendTopic {
			continue
		}
		for _, r := range all {
			m, ok := parseMessage(r.value)
			if _, sent := h.messages[message{m.id, 0}]; !ok || !sent || m.hop < 0 || m.hop > hops || ringTopic(m.hop) != p.topic {
				h.anomalyLocked("unwritten-read", "%s offset %d: %q", p, r.offset, r.value)
				continue
			}
			times[m]++
		}
	}
	for m, surely := range h.messages {
		if !surely && times[m] == 0 {
			continue // it may never have got in
		}
		for hop := range hops + 1 {
			switch n := times[message{m.id, hop}]; {
			case n == 0:
				h.anomalyLocked("lost-message", "message %d is not there at hop %d", m.id, hop)
			case n > 1:
				h.anomalyLocked("duplicate", "message %d is there %d times at hop %d", m.id, n, hop)
			}
		}
	}
}

// checkCircle looks for transactions that read what others wrote, round a circle.
func (h *history) checkCircle() {
	writer := map[message]int{}
	for i, w := range h.works {
		for _, m := range w.produced {
			writer[m] = i
		}
	}
	readers := make([][]int, len(h.works)) // by writer
	left := make([]int, len(h.works))
	for i, w := range h.works {
		for _, m := range w.consumed {
			if from, ok := writer[m]; ok {
				readers[from] = append(readers[from], i)
				left[i]++
			}
		}
	}
	var free []int
	for i, n := range left {
		if n == 0 {
			free = append(free, i)
		}
	}
	done := 0
	for ; len(free) > 0; done++ {
		i := free[len(free)-1]
		free = free[:len(free)-1]
		for _, reader := range readers[i] {
			if left[reader]--; left[reader] == 0 {
				free = append(free, reader)
			}
		}
	}
	if done < len(h.works) {
		h.anomalyLocked("cyclic-read (G1c)", "%d of %d transactions of workers", len(h.works)-done, len(h.works))
	}
}

// counts counts by name. Its zero value is ready.
type counts struct {
	mu sync.Mutex
	of map[string]int
	// codes are those of them that are a broker's error code, in few words.
	codes map[string]int
}

func (c *counts) add(what string, err error) {
	text := err.Error()
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of, c.codes = map[string]int{}, map[string]int{}
	}
	c.of[what+": "+text]++
	if code := (*kerr.Error)(nil); errors.As(err, &code) {
		c.codes[what+" "+code.Message]++
	}
}

// byCode gives all codes.
func (c *counts) byCode() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return times(c.codes)
}

// each calls f for all, the most frequent first.
func (c *counts) each(f func(what string, n int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range slices.SortedFunc(maps.Keys(c.of), func(a, b string) int { return c.of[b] - c.of[a] }) {
		f(what, c.of[what])
	}
}
