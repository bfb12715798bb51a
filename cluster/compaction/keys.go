package compaction

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/trimaran-io/trimaran/fsm"
)

// KeyBytes is what a key takes in memory, whatever its size.
const KeyBytes = 24

// LeastMemory is the least that keys are given, in bytes.
const LeastMemory = 1 << 20

// digest stands for a key: a hash that nobody can find two keys of (half of SHA-256).
type digest [16]byte

// Keys has the newest offset of each key of a part of a log, in a table of fixed size. Keys are
// known by their hash alone.
type Keys struct {
	slots []slot
	room  int // keys that still fit
}

type slot struct {
	key   digest
	after int64 // offset + 1; 0: free
}

// NewKeys makes a table of at most so many bytes, and of no more than are needed for count keys.
func NewKeys(bytes, count int64) *Keys {
	// A tenth stays free, or looking for what is not there takes long.
	slots := max(bytes, LeastMemory) / KeyBytes
	if count < slots { // of offsets there may be any number
		slots = min(slots, count+count/8+1)
	}
	return &Keys{slots: make([]slot, slots), room: int(slots - slots/10 - 1)}
}

// find gives the slot of a key, or the free one where it belongs.
func (k *Keys) find(key []byte) *slot {
	sum := sha256.Sum256(key)
	d := digest(sum[:])
	for i := binary.LittleEndian.Uint64(d[:]) % uint64(len(k.slots)); ; i++ {
		if i == uint64(len(k.slots)) {
			i = 0
		}
		if s := &k.slots[i]; s.after == 0 || s.key == d {
			s.key = d
			return s
		}
	}
}

// Put notes that a record at that offset, which is above all noted before, has a key. It reports
// false if there is no room for another key.
func (k *Keys) Put(key []byte, offset fsm.Offset) bool {
	s := k.find(key)
	if s.after == 0 {
		if k.room == 0 {
			return false
		}
		k.room--
	}
	s.after = int64(offset) + 1
	return true
}

// Newest gives the offset of a key's newest record; -1: there is none.
func (k *Keys) Newest(key []byte) fsm.Offset { return fsm.Offset(k.find(key).after - 1) }
