package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// id names one attempt to write one value. A value that is tried again, because
// the fate of an attempt is unknown, is written under the next attempt number,
// so that in the log every copy tells where it is from.
type id struct {
	producer, seq, attempt int32
}

// key and value give what is written for an attempt. The value depends on
// producer and seq only and fills about the size asked for.
func (i id) key() string { return fmt.Sprintf("%d/%d/%d", i.producer, i.seq, i.attempt) }

func (i id) value(size int) string {
	one := fmt.Sprintf("value %d of producer %d. ", i.seq, i.producer)
	return strings.Repeat(one, size/len(one)+1)
}

// parseID is the reverse of key; ok is false for what key never gives.
func parseID(key []byte) (i id, ok bool) {
	n, err := fmt.Sscanf(string(key), "%d/%d/%d", &i.producer, &i.seq, &i.attempt)
	return i, err == nil && n == 3 && i.key() == string(key)
}

// acked is one record that a producer was told is in the log.
type acked struct {
	id     id
	offset int64
}

// ledger is what the producers were told. It is the truth that the log is held
// against.
type ledger struct {
	mu          sync.Mutex
	acks        map[int32][]acked // by partition, in the order of the answers
	retried     map[id]bool       // attempts whose fate is unknown, all of which were tried again or given up
	sent        map[[2]int32]int32
	unknown     map[string]int // unknown fates by reason
	gaveUp      int            // values that were never acknowledged
	bytes       int64
	lastAck     time.Time
	lastByPart  map[int32]time.Time
	silence     gap           // of all partitions together
	silencePart map[int32]gap // of one
}

// gap is a time without an acknowledgement.
type gap struct {
	length time.Duration
	from   time.Time
}

func newLedger(partitions int32, now time.Time) *ledger {
	l := &ledger{
		acks: map[int32][]acked{}, retried: map[id]bool{}, sent: map[[2]int32]int32{}, unknown: map[string]int{},
		lastAck: now, lastByPart: map[int32]time.Time{}, silencePart: map[int32]gap{},
	}
	for p := range partitions {
		l.lastByPart[p] = now
	}
	return l
}

// attempt notes that a batch of values goes out for the nth time.
func (l *ledger) attempt(ids []id) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range ids {
		l.sent[[2]int32{i.producer, i.seq}] = i.attempt
	}
}

// acknowledge notes an answer without error: ids[n] is at base+n.
func (l *ledger) acknowledge(partition int32, ids []id, base int64, bytes int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, i := range ids {
		l.acks[partition] = append(l.acks[partition], acked{i, base + int64(n)})
	}
	l.bytes += int64(bytes)
	l.passLocked(partition, now)
	l.lastAck, l.lastByPart[partition] = now, now
}

// passLocked lets the gaps grow up to now.
func (l *ledger) passLocked(partition int32, now time.Time) {
	if d := now.Sub(l.lastAck); d > l.silence.length {
		l.silence = gap{d, l.lastAck}
	}
	if d := now.Sub(l.lastByPart[partition]); d > l.silencePart[partition].length {
		l.silencePart[partition] = gap{d, l.lastByPart[partition]}
	}
}

// end lets the gaps that are open at the end of the run count.
func (l *ledger) end(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.lastByPart {
		l.passLocked(p, now)
	}
}

// unknownFate notes that nobody can say whether these attempts are in the log.
func (l *ledger) unknownFate(ids []id, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range ids {
		l.retried[i] = true
	}
	l.unknown[reason] += len(ids)
}

func (l *ledger) giveUp(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaveUp += n
}

// count gives the number of acknowledged records.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.acks {
		n += len(a)
	}
	return n
}

// longest gives the longest silence of any one partition.
func (l *ledger) longest() (int32, gap) {
	worst := int32(0)
	for p, g := range l.silencePart {
		if g.length > l.silencePart[worst].length {
			worst = p
		}
	}
	return worst, l.silencePart[worst]
}
