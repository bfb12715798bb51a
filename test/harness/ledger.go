package harness

import (
	"fmt"
	"sync"
)

// Ledger is what a producer was told: value by offset, per partition. It is the
// side of the checker that shares nothing with the cluster.
type Ledger struct {
	mu   sync.Mutex
	said map[int32]map[int64]string
	sent map[string]bool // everything handed to the client, acknowledged or not
	n    int
}

// NewLedger gives an empty one.
func NewLedger() *Ledger {
	return &Ledger{said: map[int32]map[int64]string{}, sent: map[string]bool{}}
}

// Sent notes that a value was handed to the client.
func (l *Ledger) Sent(value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[value] = true
}

// Acknowledged notes what the producer was told. An offset told twice is an error.
func (l *Ledger) Acknowledged(partition int32, offset int64, value string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.said[partition]
	if m == nil {
		m = map[int64]string{}
		l.said[partition] = m
	}
	if old, ok := m[offset]; ok && offset >= 0 {
		return fmt.Errorf("partition %d offset %d acknowledged twice: %q and %q", partition, offset, old, value)
	}
	m[offset] = value
	l.n++
	return nil
}

// Count gives the number of acknowledged records.
func (l *Ledger) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// End gives one past the highest acknowledged offset of a partition.
func (l *Ledger) End(partition int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := int64(0)
	for o := range l.said[partition] {
		end = max(end, o+1)
	}
	return end
}

// Check compares a partition as read with what was acknowledged: every
// acknowledged record at its offset, offsets without a hole, no record that
// nobody sent, none twice. A value is sent once and never tried again, so what
// was sent and not acknowledged may be there or not, and once at most.
func (l *Ledger) Check(partition int32, records []Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := map[int64]string{}
	seen := map[string]int64{}
	for i, r := range records {
		if r.Offset != int64(i) {
			return fmt.Errorf("record %d has offset %d: a hole or a doubled offset", i, r.Offset)
		}
		v := string(r.Value)
		if !l.sent[v] {
			return fmt.Errorf("offset %d holds %.60q, which nobody sent", r.Offset, v)
		}
		if first, ok := seen[v]; ok {
			return fmt.Errorf("doubled: %.60q is at offset %d and again at %d", v, first, r.Offset)
		}
		seen[v] = r.Offset
		at[r.Offset] = v
	}
	for o, v := range l.said[partition] {
		if got, ok := at[o]; !ok {
			return fmt.Errorf("lost: offset %d of partition %d was acknowledged for %.60q; the log ends at %d", o, partition, v, len(records))
		} else if got != v {
			return fmt.Errorf("moved: offset %d of partition %d was acknowledged for %.60q and holds %.60q", o, partition, v, got)
		}
	}
	return nil
}
