package raftlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// A store that is closed notes where its logs end. That says two things to the next start: nothing in the journal is
// needed any more, and a log that ends before that has lost something, which looks like a torn append otherwise.

const (
	closedName   = "closed"
	closedMagic  = "TRMEND\x00\x01"
	closedHeader = 12

	// suspectName is in the folder of a log that may have lost acknowledged entries, and says why. It goes
	// with the folder, when the replica is made anew.
	suspectName = "damaged"
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

// settles reports whether nothing is needed of a journal that has these files and, as far as can be known, this newest epoch: it
// is the one that was there then. Each start makes a file with a higher number before anything else.
func (c closed) settles(epoch uint64, files []int) bool {
	return c.noted && (c.Epoch == epoch || len(files) > 0 && slices.Max(files)+1 == c.Next)
}

// writeClosed replaces what was noted before.
func (st *Store) writeClosed() error {
	c := closed{}
	if st.journal != nil {
		c.Epoch, c.Next = st.journal.epoch, st.journal.next
	}
	for _, end := range st.ends {
		c.Ends = append(c.Ends, end)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	b := append([]byte(closedMagic), 0, 0, 0, 0)
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(text, castagnoli))
	return writeFile(st, st.dir, closedName, b)
}

// readClosed gives what was noted when the store was closed last; nothing where that cannot be read.
func (st *Store) readClosed() (c closed) {
	b, err := readFile(st, filepath.Join(st.dir, closedName), maxManifest)
	if err != nil || len(b) < closedHeader || string(b[:8]) != closedMagic ||
		binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[closedHeader:], castagnoli) || json.Unmarshal(b[closedHeader:], &c) != nil {
		return closed{}
	}
	c.noted = true
	return c
}

// distrust notes in the folders of all logs that they may have lost entries.
func (st *Store) distrust(cause error) error {
	dirs, err := st.fs.List(st.Groups())
	if err != nil {
		return err
	}
	st.logger.Error("the journal is damaged: every log here may have lost acknowledged entries, and is not used any more", "error", cause)
	for _, d := range dirs {
		dir := filepath.Join(st.Groups(), d.Name)
		if !d.Dir || strings.HasSuffix(d.Name, ".deleted") {
			continue
		}
		if err := writeFile(st, dir, suspectName, []byte(cause.Error()+"\n")); err != nil {
			return fmt.Errorf("%w; and then: %w", cause, err)
		}
	}
	return nil
}

// suspected gives an error if the log in a folder may have lost entries.
func (st *Store) suspected(dir string) error {
	b, err := readFile(st, filepath.Join(dir, suspectName), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it may have lost acknowledged entries: %s", ErrDamaged, strings.TrimSpace(string(b)))
}
