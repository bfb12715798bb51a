package harness

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"
)

// Attempt names one attempt to write one value. A value that is tried again, because
// the fate of an attempt is unknown, is written under the next number, so that in the
// log every copy tells where it is from.
type Attempt struct {
	Producer, Seq, Try int32
}

// Key and Value give what is written for an attempt. The value depends on the producer
// and Seq only and fills about the size asked for, in bytes.
func (a Attempt) Key() string { return fmt.Sprintf("%d/%d/%d", a.Producer, a.Seq, a.Try) }

// Value is what stands beside the key.
func (a Attempt) Value(size int) string {
	one := fmt.Sprintf("value %d of producer %d. ", a.Seq, a.Producer)
	return strings.Repeat(one, size/len(one)+1)
}

// ParseAttempt is the reverse of Key; ok is false for what Key never gives.
func ParseAttempt(key []byte) (a Attempt, ok bool) {
	n, err := fmt.Sscanf(string(key), "%d/%d/%d", &a.Producer, &a.Seq, &a.Try)
	return a, err == nil && n == 3 && a.Key() == string(key)
}

// acked is one record that a producer was told is in the log.
type acked struct {
	attempt Attempt
	offset  int64
}

// Ledger is what the producers were told. It is the truth that the log is held
// against, and shares nothing with the cluster.
type Ledger struct {
	mu   sync.Mutex        // guards all below; nothing is waited for under it
	acks map[int32][]acked // by partition, in the order of the answers
	told map[int32]map[int64]bool
	ends map[int32]int64 // by partition, one past the highest acknowledged offset
	// those whose fate is unknown, all of which were tried again or given up
	retried    map[Attempt]bool
	sent       map[[2]int32]int32  // by producer and Seq, the last try
	unknown    map[string]int      // unknown fates by reason
	gaveUp     int                 // values that were never acknowledged
	bytes      int64               // acknowledged
	lastAck    time.Time           // of any partition
	last       map[int32]time.Time // by partition
	silence    Gap                 // of all partitions together
	silences   map[int32]Gap       // by partition
	impossible error               // the first acknowledgement that cannot be
}

// Gap is a time without an acknowledgement.
type Gap struct {
	Length time.Duration
	From   time.Time
}

// NewLedger gives an empty one, for partitions 0 to partitions-1. Silence counts from now on.
func NewLedger(partitions int32, now time.Time) *Ledger {
	l := &Ledger{
		acks: map[int32][]acked{}, told: map[int32]map[int64]bool{}, ends: map[int32]int64{}, retried: map[Attempt]bool{},
		sent: map[[2]int32]int32{}, unknown: map[string]int{}, lastAck: now, last: map[int32]time.Time{}, silences: map[int32]Gap{},
	}
	for p := range partitions {
		l.last[p], l.told[p] = now, map[int64]bool{}
	}
	return l
}

// Sent notes that these go out, in one batch.
func (l *Ledger) Sent(batch []Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range batch {
		l.sent[[2]int32{a.Producer, a.Seq}] = a.Try
	}
}

// Acknowledged notes an answer without error: batch[n] is at base+n. bytes is what it carried. That
// an offset is told twice cannot be; Impossible says so.
func (l *Ledger) Acknowledged(partition int32, batch []Attempt, base int64, bytes int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, a := range batch {
		offset := base + int64(n)
		if l.told[partition][offset] && l.impossible == nil {
			l.impossible = fmt.Errorf("partition %d: offset %d is acknowledged twice, the second time for %s", partition, offset, a.Key())
		}
		l.told[partition][offset] = true
		l.acks[partition] = append(l.acks[partition], acked{a, offset})
		l.ends[partition] = max(l.ends[partition], offset+1)
	}
	l.bytes += int64(bytes)
	l.passLocked(partition, now)
	l.lastAck, l.last[partition] = now, now
}

// passLocked lets the gaps grow up to now.
func (l *Ledger) passLocked(partition int32, now time.Time) {
	if d := now.Sub(l.lastAck); d > l.silence.Length {
		l.silence = Gap{d, l.lastAck}
	}
	if d := now.Sub(l.last[partition]); d > l.silences[partition].Length {
		l.silences[partition] = Gap{d, l.last[partition]}
	}
}

// Close lets the gaps that are open at the end of the run count.
func (l *Ledger) Close(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.last {
		l.passLocked(p, now)
	}
}

// Unknown notes that nobody can say whether these are in the log, and why.
func (l *Ledger) Unknown(batch []Attempt, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range batch {
		l.retried[a] = true
	}
	l.unknown[reason] += len(batch)
}

// GaveUp notes that n values are not tried any more.
func (l *Ledger) GaveUp(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaveUp += n
}

// Count gives the number of acknowledged records.
func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.acks {
		n += len(a)
	}
	return n
}

// End gives one past the highest acknowledged offset of a partition.
func (l *Ledger) End(partition int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends[partition]
}

// Impossible gives the first acknowledgement that cannot be, whatever the log holds.
func (l *Ledger) Impossible() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.impossible
}

// Longest gives the longest silence of any one partition, and which it was.
func (l *Ledger) Longest() (partition int32, gap Gap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, g := range l.silences {
		if g.Length > gap.Length {
			partition, gap = p, g
		}
	}
	return partition, gap
}

// ForgetSilence begins to measure silence anew.
func (l *Ledger) ForgetSilence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silence = Gap{}
	clear(l.silences)
}

// Summary is what a ledger says of a run as a whole.
type Summary struct {
	Retried int            // attempts whose fate is unknown
	Unknown map[string]int // the same by reason
	GaveUp  int            // values that were never acknowledged
	Bytes   int64          // acknowledged
	Silence Gap            // the longest time without an acknowledgement of any partition
}

// Summary gives it.
func (l *Ledger) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Summary{Retried: len(l.retried), Unknown: maps.Clone(l.unknown), GaveUp: l.gaveUp, Bytes: l.bytes, Silence: l.silence}
}
