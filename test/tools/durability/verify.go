package main

import (
	"fmt"
)

// verdict is what came of holding the logs against the ledger, in records. Each
// gateway's copy counts, so one record that is missing at two of them counts twice.
type verdict struct {
	acknowledged int
	lost         int // acknowledged and not in the log
	moved        int // acknowledged and at another offset than the producer was told …
	differ       int // … or another record at the same offset of two gateways
	duplicated   int // one attempt in the log more than once
	disordered   int // acknowledged later than one of the same producer that stands behind it
	apart        int // replicas that differ on disk
	foreign      int // in the log, and never sent in this form
	changed      int // seen by a consumer during the run, and something else now
	again        int // values that are there more than once because an attempt of unknown fate was tried again

	examples []string
}

// good reports whether nothing is wrong.
func (v *verdict) good() bool {
	return v.lost+v.moved+v.differ+v.duplicated+v.disordered+v.apart+v.foreign+v.changed == 0
}

// example keeps the first few things that are wrong, to look at.
func (v *verdict) example(format string, args ...any) {
	if len(v.examples) < 20 {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// check holds one gateway's copy of a partition against what producers were told.
func (v *verdict) check(gateway string, partition int32, log []entry, l *ledger) {
	where := map[id]int64{}
	copies := map[[2]int32]int{}
	for offset, e := range log {
		last, sent := l.sent[[2]int32{e.id.producer, e.id.seq}]
		if e.foreign || !sent || e.id.attempt > last || e.id.attempt < 0 {
			v.foreign++
			v.example("%s: partition %d offset %d holds what nobody wrote", gateway, partition, offset)
			continue
		}
		if first, there := where[e.id]; there {
			v.duplicated++
			v.example("%s: partition %d: %s is at offset %d and again at %d", gateway, partition, e.id.key(), first, offset)
			continue
		}
		where[e.id] = int64(offset)
		copies[[2]int32{e.id.producer, e.id.seq}]++
	}
	for _, n := range copies {
		if n > 1 {
			v.again++
		}
	}
	behind := map[int32]int64{} // by producer: offset of its last acknowledged record
	for _, a := range l.acks[partition] {
		at, there := where[a.id]
		switch {
		case !there:
			v.lost++
			v.example("%s: partition %d: %s was acknowledged at offset %d and is nowhere; the log ends at %d",
				gateway, partition, a.id.key(), a.offset, len(log))
		case at != a.offset:
			v.moved++
			v.example("%s: partition %d: %s was acknowledged at offset %d and is at %d", gateway, partition, a.id.key(), a.offset, at)
		}
		if last, ok := behind[a.id.producer]; ok && a.offset <= last {
			v.disordered++
			v.example("partition %d: %s was acknowledged at offset %d, after %d", partition, a.id.key(), a.offset, last)
		}
		behind[a.id.producer] = a.offset
	}
}

// compare holds two gateways' copies of a partition against each other.
func (v *verdict) compare(one, other string, partition int32, a, b []entry) {
	if len(a) != len(b) {
		v.differ += max(len(a), len(b)) - min(len(a), len(b))
		v.example("partition %d ends at %d at %s and at %d at %s", partition, len(a), one, len(b), other)
	}
	for offset := range min(len(a), len(b)) {
		if a[offset] != b[offset] {
			v.differ++
			v.example("partition %d offset %d: %s has %s, %s has %s", partition, offset, one, a[offset].id.key(), other, b[offset].id.key())
		}
	}
}

// watched holds what a consumer saw during the run against the log.
func (v *verdict) watched(partition int32, seen, log []entry) {
	for offset, e := range seen {
		if offset >= len(log) {
			v.changed++
			v.example("partition %d offset %d was read during the run, and the log ends at %d", partition, offset, len(log))
		} else if log[offset] != e {
			v.changed++
			v.example("partition %d offset %d was %s when read during the run and is %s now", partition, offset, e.id.key(), log[offset].id.key())
		}
	}
}
