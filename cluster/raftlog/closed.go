package raftlog

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"maps"
	"path/filepath"
	"slices"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// A store that is closed notes where its logs end. That says two things to the next start: nothing
// in the journal is needed any more, and a log that ends before that has lost something, which
// looks like a torn append otherwise.

const (
	closedName   = "closed"
	closedMagic  = "TRMEND\x00\x01"
	closedHeader = 12
)

// closed is what was noted.
type closed struct {
	noted bool         // something was
	Epoch uint64       `json:"epoch"`          // of the journal; 0: there is none
	Next  int          `json:"next,omitempty"` // number that the next file of the journal gets
	Ends  []closedEnds `json:"ends"`
}

// closedEnds is where a log ended. A segment that is cut has another id.
type closedEnds struct {
	ID   uint64 `json:"id"` // of the last segment
	Last uint64 `json:"last"`
}

// settles reports whether nothing is needed of a journal that has these files and, as far as can be
// known, this newest epoch: it is the one that was there then. Each start makes a file with a
// higher number before anything else.
func (c closed) settles(epoch uint64, files []int) bool {
	return c.noted && (c.Epoch == epoch || len(files) > 0 && slices.Max(files)+1 == c.Next)
}

// endedAt gives the last entry of a segment when the store was closed last; 0: not known.
func (c closed) endedAt(id uint64) uint64 {
	for _, end := range c.Ends {
		if end.ID == id {
			return end.Last
		}
	}
	return 0
}

// write replaces what was noted before in the folder of a store.
func (c closed) write(d *disk, dir string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	b := append([]byte(closedMagic), 0, 0, 0, 0)
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(text, castagnoli))
	return d.writeFile(dir, closedName, b)
}

// readClosed gives what was noted when the store in a folder was closed last; nothing where that
// cannot be read.
func readClosed(d *disk, dir string) (c closed) {
	b, err := d.readFile(filepath.Join(dir, closedName), maxManifest)
	if err != nil || len(b) < closedHeader || string(b[:8]) != closedMagic ||
		binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[closedHeader:], castagnoli) || json.Unmarshal(b[closedHeader:], &c) != nil {
		return closed{}
	}
	c.noted = true
	return c
}

// ledger keeps the books of a store's logs: how many are open, and where those ended that are
// closed.
type ledger struct {
	disk *disk

	// mu guards all below. Nothing is taken or waited for under it.
	mu     locks.Mutex[ledger]
	open   int
	ends   map[string]closedEnds // by folder
	tidyAt int                   // number of ends
}

// opened is told that the log in a folder is open.
func (b *ledger) opened(dir string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open++
	delete(b.ends, dir)
}

// ended is told that a log was closed; last is where it ended, or nil if that is not known or not
// all of it is on stable storage.
func (b *ledger) ended(dir string, last *closedEnds) {
	b.mu.Lock()
	b.open--
	if last != nil {
		b.ends[dir] = *last
	}
	var all map[string]closedEnds
	if len(b.ends) >= max(b.tidyAt, 1024) {
		all = maps.Clone(b.ends)
	}
	b.mu.Unlock()
	if all != nil {
		b.tidy(all)
	}
}

// tidy forgets logs whose folders are gone: most are of partitions that were deleted. One that was
// made, opened and closed there meanwhile ended elsewhere than what is in ends, and stays.
func (b *ledger) tidy(ends map[string]closedEnds) {
	maps.DeleteFunc(ends, func(dir string, _ closedEnds) bool {
		_, err := b.disk.fs.List(dir)
		return err == nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.ends, func(dir string, end closedEnds) bool {
		gone, ok := ends[dir]
		return ok && gone == end
	})
	b.tidyAt = max(1024, 2*len(b.ends))
}

// all gives where the logs ended; ok is false if one is still open.
func (b *ledger) all() (ends []closedEnds, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.ends)), b.open == 0
}
