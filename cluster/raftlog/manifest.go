package raftlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/hashicorp/raft"
)

const (
	manifestName   = "manifest"
	manifestNew    = manifestName + ".new"
	manifestMagic  = "TRMMAN\x00" // and the format: 2 if the log is compacted, else 1
	manifestFormat = 2
	manifestHeader = 24
	maxManifest    = 1 << 30
)

// manifest says which files are the partition's log, and holds its snapshot: they
// change together, by a rename (invariant 2).
type manifest struct {
	// Group is the name of the Raft group, so that a folder that was moved is told
	// from the right one.
	Group string `json:"group"`
	// Generation is in the names of segments made under this manifest. Segments
	// that are newer than those listed belong to the log if they have it.
	Generation uint32 `json:"generation"`
	// First is where the log begins: segments with a lower base were deleted, even
	// if their files are still there.
	First    uint64          `json:"first,omitempty"`
	Segments []segmentRecord `json:"segments,omitempty"`
	Snapshot *snapshotRecord `json:"snapshot,omitempty"`
	// Compacted is how far the segments are.
	Compacted Compaction `json:"compacted,omitzero"`

	state []byte // of the snapshot
}

// segmentRecord is what a manifest knows of a segment.
type segmentRecord struct {
	Base       uint64 `json:"base"`
	Generation uint32 `json:"generation"`
	// Rewrite counts how often compaction has made a file in place of others; 0: it has not.
	Rewrite uint32 `json:"rewrite,omitempty"`
	// Last is the index of the segment's last entry, End the position behind it;
	// what the file has beyond does not count. 0: it is still written to.
	Last  uint64 `json:"last,omitempty"`
	End   int64  `json:"end,omitempty"`
	Chain uint32 `json:"chain,omitempty"` // CRC of the last entry
	// What is known of the records in it, as far as the snapshot reaches.
	Start     int64 `json:"start"`
	MaxTime   int64 `json:"max_time"`
	LastWrite int64 `json:"last_write"`
	// Final: there is an index that never changes. Else Points and PointsCRC vouch
	// for the first points of one that is being written.
	Final     bool   `json:"final,omitempty"`
	Points    int    `json:"points,omitempty"`
	PointsCRC uint32 `json:"points_crc,omitempty"`
}

func (r segmentRecord) id() segmentID { return segmentID{r.Base, r.Generation, r.Rewrite} }

// snapshotRecord is the snapshot but for its state.
type snapshotRecord struct {
	Index              uint64             `json:"index"`
	Term               uint64             `json:"term"`
	Configuration      raft.Configuration `json:"configuration"`
	ConfigurationIndex uint64             `json:"configuration_index"`
	Next               int64              `json:"next"` // offset behind it
	// Where the entry behind the snapshot is or will be: reading begins there after
	// a restart.
	Segment uint64 `json:"segment"`
	Pos     int64  `json:"pos"`
	Chain   uint32 `json:"chain"`
}

func (m *manifest) encode() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := append(make([]byte, 0, manifestHeader+len(text)+len(m.state)), manifestMagic...)
	if m.Compacted == (Compaction{}) {
		b = append(b, 1)
	} else {
		b = append(b, manifestFormat)
	}
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(text)))
	b = le.AppendUint64(b, uint64(len(m.state)))
	b = append(b, text...)
	b = append(b, m.state...)
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b, nil
}

func decodeManifest(b []byte) (*manifest, error) {
	if len(b) >= 8 && string(b[:7]) == manifestMagic && b[7] > manifestFormat {
		return nil, fmt.Errorf("manifest: %w: format %d", ErrVersion, b[7])
	}
	le := binary.LittleEndian
	if len(b) < manifestHeader || string(b[:7]) != manifestMagic || b[7] == 0 {
		return nil, fmt.Errorf("%w: no manifest", ErrDamaged)
	}
	if crc := crc32.Checksum(b[12:], castagnoli); crc != le.Uint32(b[8:]) {
		return nil, fmt.Errorf("%w: manifest: CRC %08x, its bytes give %08x", ErrDamaged, le.Uint32(b[8:]), crc)
	}
	text, state := uint64(le.Uint32(b[12:])), le.Uint64(b[16:])
	if uint64(len(b)-manifestHeader) < text || uint64(len(b)-manifestHeader)-text != state {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrDamaged, len(b))
	}
	m := &manifest{}
	if err := json.Unmarshal(b[manifestHeader:manifestHeader+text], m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	m.state = b[manifestHeader+text:]
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	return m, nil
}

// maxPoints bounds the points of one index, and what a wrong manifest makes us read.
const maxPoints = 1 << 31

// check says what cannot be in a manifest that this program wrote. What it says of
// files is compared with them later.
func (m *manifest) check() error {
	if m.Snapshot == nil && len(m.Segments) > 0 {
		return errors.New("segments and no snapshot")
	}
	if s := m.Snapshot; s != nil && (s.Index == 0 || s.Next < 0 || s.Segment == 0 || s.Segment > s.Index || s.Pos < segmentHeader) {
		return fmt.Errorf("snapshot of entry %d in segment %d at %d", s.Index, s.Segment, s.Pos)
	}
	for i, s := range m.Segments {
		last := i == len(m.Segments)-1
		switch {
		case s.Base == 0 || s.Base < m.First || i > 0 && s.Base <= m.Segments[i-1].Base,
			s.Last == 0 && !last,
			s.Last != 0 && (s.Last < s.Base-1 || s.End < segmentHeader):
			return fmt.Errorf("segment %d is out of order", s.Base)
		case s.Start < unknownOffset || s.Points < 0 || s.Points > maxPoints || s.Final && s.Last == 0:
			return fmt.Errorf("segment %d begins at offset %d and has %d points", s.Base, s.Start, s.Points)
		}
	}
	return nil
}

// readManifest gives nil if there is none.
func readManifest(d *disk, dir string) (*manifest, error) {
	b, err := d.readFile(filepath.Join(dir, manifestName), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeManifest(b)
}

// write puts the manifest in place of the one before, durably.
func (m *manifest) write(d *disk, dir string) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	return d.writeFile(dir, manifestName, b)
}
