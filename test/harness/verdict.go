package harness

import (
	"fmt"
	"strings"
)

// Record is what one gateway gave for one offset. Its index in a log is the offset.
type Record struct {
	Attempt Attempt
	Foreign bool // not what any producer wrote
}

// RecordOf turns a message into a Record. size is the producers' value size.
func RecordOf(e Entry, size int) Record {
	a, ok := ParseAttempt(e.Key)
	if !ok || string(e.Value) != a.Value(size) {
		return Record{Foreign: true}
	}
	return Record{Attempt: a}
}

// Verdict is what came of holding the logs against the ledger, in records. Each
// gateway's copy counts, so one record that is missing at two of them counts twice.
type Verdict struct {
	Acknowledged int
	Lost         int // acknowledged and not in the log
	Moved        int // acknowledged and at another offset than the producer was told …
	Differ       int // … or another record at the same offset of two gateways
	Duplicated   int // one attempt in the log more than once
	Disordered   int // acknowledged later than one of the same producer that stands behind it
	Apart        int // replicas that differ on disk
	Foreign      int // in the log, and never sent in this form
	Changed      int // seen by a consumer during the run, and something else now
	// values that are there more than once because an attempt of unknown fate was tried again
	Again int

	Examples []string
}

// Good reports whether nothing is wrong.
func (v *Verdict) Good() bool {
	return v.Lost+v.Moved+v.Differ+v.Duplicated+v.Disordered+v.Apart+v.Foreign+v.Changed == 0
}

// Example keeps the first few things that are wrong, to look at.
func (v *Verdict) Example(format string, args ...any) {
	if len(v.Examples) < 20 {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

// Check holds one gateway's copy of a partition against what producers were told.
func (v *Verdict) Check(gateway string, partition int32, log []Record, l *Ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	where := map[Attempt]int64{}
	copies := map[[2]int32]int{}
	for offset, e := range log {
		last, sent := l.sent[[2]int32{e.Attempt.Producer, e.Attempt.Seq}]
		if e.Foreign || !sent || e.Attempt.Try > last || e.Attempt.Try < 0 {
			v.Foreign++
			v.Example("%s: partition %d offset %d holds what nobody wrote", gateway, partition, offset)
			continue
		}
		if first, there := where[e.Attempt]; there {
			v.Duplicated++
			v.Example("%s: partition %d: %s is at offset %d and again at %d", gateway, partition, e.Attempt.Key(), first, offset)
			continue
		}
		where[e.Attempt] = int64(offset)
		copies[[2]int32{e.Attempt.Producer, e.Attempt.Seq}]++
	}
	for _, n := range copies {
		if n > 1 {
			v.Again++
		}
	}
	behind := map[int32]int64{} // by producer: offset of its last acknowledged record
	for _, a := range l.acks[partition] {
		at, there := where[a.attempt]
		switch {
		case !there:
			v.Lost++
			v.Example("%s: partition %d: %s was acknowledged at offset %d and is nowhere; the log ends at %d",
				gateway, partition, a.attempt.Key(), a.offset, len(log))
		case at != a.offset:
			v.Moved++
			v.Example("%s: partition %d: %s was acknowledged at offset %d and is at %d", gateway, partition, a.attempt.Key(), a.offset, at)
		}
		if last, ok := behind[a.attempt.Producer]; ok && a.offset <= last {
			v.Disordered++
			v.Example("partition %d: %s was acknowledged at offset %d, after %d", partition, a.attempt.Key(), a.offset, last)
		}
		behind[a.attempt.Producer] = a.offset
	}
}

// Compare holds two gateways' copies of a partition against each other.
func (v *Verdict) Compare(one, other string, partition int32, a, b []Record) {
	if len(a) != len(b) {
		v.Differ += max(len(a), len(b)) - min(len(a), len(b))
		v.Example("partition %d ends at %d at %s and at %d at %s", partition, len(a), one, len(b), other)
	}
	for offset := range min(len(a), len(b)) {
		if a[offset] != b[offset] {
			v.Differ++
			v.Example("partition %d offset %d: %s has %s, %s has %s", partition, offset, one, a[offset].Attempt.Key(), other, b[offset].Attempt.Key())
		}
	}
}

// Watched holds what a consumer saw during the run against the log.
func (v *Verdict) Watched(partition int32, seen, log []Record) {
	for offset, e := range seen {
		if offset >= len(log) {
			v.Changed++
			v.Example("partition %d offset %d was read during the run, and the log ends at %d", partition, offset, len(log))
		} else if log[offset] != e {
			v.Changed++
			v.Example("partition %d offset %d was %s when read during the run and is %s now", partition, offset, e.Attempt.Key(), log[offset].Attempt.Key())
		}
	}
}

// Check holds a partition as one gateway gave it, from offset 0 on, against what producers were
// told; valueSize is what their values were made with. nil: every acknowledged record is at its
// offset, there is no hole, nothing that nobody sent, and nothing twice.
func (l *Ledger) Check(gateway string, partition int32, entries []Entry, valueSize int) error {
	log := make([]Record, len(entries))
	for i, e := range entries {
		if e.Offset != int64(i) {
			return fmt.Errorf("%s: record %d of partition %d has offset %d: a hole or a doubled offset", gateway, i, partition, e.Offset)
		}
		log[i] = RecordOf(e, valueSize)
	}
	var v Verdict
	if v.Check(gateway, partition, log, l); !v.Good() {
		return fmt.Errorf("not what was acknowledged: %s", strings.Join(v.Examples, "; "))
	}
	return nil
}
