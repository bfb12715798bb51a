package raftlog

import (
	"slices"

	"github.com/hashicorp/raft"
)

// Standing is what the log knows of its records at one moment. A snapshot is written while more is
// applied, and says nothing of that.
type Standing struct {
	known              bool
	next               int64    // offset behind what is applied
	seg                *segment // the one that is being applied
	maxTime, lastWrite int64    // of its records so far
}

// Standing is asked for when the partition's state is taken for a snapshot, and nothing is applied
// beside that; next is the offset behind it.
func (v *view) Standing(next int64) Standing {
	v.mu.RLock()
	defer v.mu.RUnlock()
	at := Standing{known: true, next: next, maxTime: noTime}
	if v.applying < len(v.segments) {
		at.seg = v.segments[v.applying]
		at.maxTime, at.lastWrite = at.seg.maxTime, at.seg.lastWrite
	}
	return at
}

// parts gives what a snapshot and an adoption describe. None of it must be changed.
func (v *view) parts() (m *manifest, segments segmentList, applying int, ends []segmentEnd) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.manifest, v.segments, v.applying, slices.Clone(v.ends)
}

// record describes a segment but for its index. The end of one that reaches above the snapshot is
// left open: it may still be cut.
func (v *view) record(s *segment, snapshot uint64, at Standing) segmentRecord {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := segmentRecord{Base: s.base, Generation: s.gen, Rewrite: s.rewrite, Start: s.start, MaxTime: s.maxTime, LastWrite: s.lastWrite}
	switch {
	case s == at.seg:
		r.MaxTime, r.LastWrite = at.maxTime, at.lastWrite
	case at.seg == nil || s.base > at.seg.base:
		r.MaxTime, r.LastWrite = noTime, 0
	}
	if s.sealed && s.last <= snapshot {
		r.Last, r.End, r.Chain = s.last, s.end, s.chain
	}
	return r
}

// publish is told of the manifest that is on the disk now, with its snapshot, and of the segments
// whose state is in their final indexes.
func (v *view) publish(m *manifest, final segmentList) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.manifest = m
	v.applied = max(v.applied, m.Snapshot.Index)
	v.ends = slices.DeleteFunc(slices.Clone(v.ends), func(e segmentEnd) bool { return slices.Contains(final, e.seg) })
}

// Described is what another replica must know of a log to copy it.
type Described struct {
	First      uint64 // index of the first entry kept
	FirstStart int64  // next offset in front of it
	Bytes      int64  // about what there is from the index that was asked for on

	// The snapshot.
	Index, Term        uint64
	Configuration      raft.Configuration
	ConfigurationIndex uint64
	Next               int64
	State              []byte `json:"-"`

	// Compacted is how far the entries are that can be copied now.
	Compacted Compaction `json:"compacted,omitzero"`
}

// empty reports whether retention has freed everything up to the snapshot: there are no
// entries to copy then.
func (d Described) empty() bool { return d.First == d.Index+1 }

// Describe gives what a replica that has everything up to index have needs to
// copy the rest. ok is false if there is no snapshot yet.
func (v *view) Describe(have uint64) (d Described, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.manifest.Snapshot
	if s == nil || len(v.segments) == 0 {
		return d, false
	}
	d = Described{
		First: v.segments[0].base, FirstStart: v.segments[0].start,
		Index: s.Index, Term: s.Term, Configuration: s.Configuration, ConfigurationIndex: s.ConfigurationIndex,
		Next: s.Next, State: v.manifest.state, Compacted: v.manifest.Compacted,
	}
	for _, seg := range v.segments {
		switch {
		case seg.base > s.Index:
		case seg.base == s.Segment:
			d.Bytes += s.Pos - segmentHeader
		case seg.last > have:
			d.Bytes += seg.end - segmentHeader
		}
	}
	return d, true
}
