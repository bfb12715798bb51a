package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// AppendEntries appends entries from index from on, as they are on disk in format 1, until
// limit bytes or the entry at index to, at least one. The bytes are for
// ParseEntries of another node.
func (l *entries) AppendEntries(dst []byte, from, to uint64, limit int) ([]byte, error) {
	start := len(dst)
	if s, _ := l.view.locate(from); s == nil {
		return dst, fmt.Errorf("%w: entry %d", ErrNotInLog, from)
	}
	var err error
	scanErr := l.Scan(from, func(entry *raft.Log) bool {
		if firstOf(entry) != from && len(dst) == start {
			return false // the one that was asked for was freed, or compacted, this moment
		}
		if entry.Index > to || len(dst) > start && len(dst)-start+int(framing{}.size(entry)) > limit {
			return false
		}
		dst, _, err = appendFrame(dst, framing{}, 0, entry, 0, 0)
		return err == nil && len(dst)-start < limit
	})
	if err = errors.Join(err, scanErr); err == nil && len(dst) == start {
		err = fmt.Errorf("%w: entry %d", ErrNotInLog, from)
	}
	return dst, err
}

// ParseEntries reads what AppendEntries of another node gave. Data alias b.
func ParseEntries(b []byte) ([]*raft.Log, error) {
	var entries []*raft.Log
	for len(b) > 0 {
		f, err := parseFrame(b, framing{}, 0)
		if err != nil {
			return nil, err
		}
		if f.size() > int64(len(b)) {
			return nil, fmt.Errorf("%w: entry %d is cut short", ErrDamaged, f.index)
		}
		if err := f.verify(b); err != nil {
			return nil, err
		}
		entry := f.entry(b)
		if n := len(entries); n > 0 && firstOf(&entry) != entries[n-1].Index+1 {
			return nil, fmt.Errorf("%w: entry %d behind entry %d", ErrDamaged, entry.Index, entries[n-1].Index)
		}
		entries = append(entries, &entry)
		b = b[f.size():]
	}
	return entries, nil
}
