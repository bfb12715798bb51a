package raftlog

import (
	"archive/zip"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// format1 gives the data directory that a program left behind, by being killed, which knew format 1
// alone: entries 1 to 40 of term 1 (entry), applied up to 30, a snapshot of entry 20; some behind
// entry 32 had been cut off once.
func format1(t *testing.T) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader("testdata/format1.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		files[filepath.Join("/data", f.Name)] = b
	}
	return files
}

// A data directory of format 1 opens and goes on: as it is, after an upgrade of the cluster, and
// after losses of power.
func TestADataDirectoryOfFormat1GoesOn(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for seed := range uint64(5) {
			disk := format1(t)
			if lost { // the journal has it
				for name, b := range disk {
					if strings.HasSuffix(name, "36-1"+segmentSuffix) {
						clear(b[segmentHeader:])
					}
				}
			}
			h := &held{t: t, mem: fromFiles(t, disk), damaged: make(chan error, 1)}
			check := func(last uint64, stamped bool) {
				t.Helper()
				if err := h.holds([]uint64{last}, []uint64{1}); err != nil {
					t.Fatalf("lost %v, seed %d: %v", lost, seed, err)
				}
				if h.st.stamping() != stamped {
					t.Fatalf("lost %v, seed %d: new files are of format 2: %v", lost, seed, !stamped)
				}
			}
			h.open(false)
			check(40, false)
			if s := h.SnapshotIndex(); s != 20 {
				t.Fatalf("snapshot of entry %d", s)
			}
			h.store(41, 50, 1)
			h.crash(seed)
			check(50, false)
			h.apply(50)
			h.mustSnapshot()
			h.st.Upgrade()
			h.store(51, 51, 1)
			if n := len(h.segments); h.segments[n-2].framing.stamped || !h.segments[n-1].framing.stamped {
				t.Error("the next append begins no segment of format 2")
			}
			h.store(52, 60, 1)
			h.crash(seed)
			check(60, true)
			h.apply(60)
			if err := h.read(); err != nil {
				t.Errorf("lost %v, seed %d: %v", lost, seed, err)
			}
			h.store(61, 70, 1)
			if err := errors.Join(h.PartitionLog.Close(), h.st.Close()); err != nil {
				t.Fatal(err)
			}
			h.open(false)
			check(70, true)
			h.PartitionLog.Close()
			h.st.Close()
		}
	}
}

// read reads all that is applied, by offset, over the border of the formats.
func (h *held) read() error {
	m := &modelLog{name: "g", applied: h.applied, next: h.next}
	return m.read(h.PartitionLog)
}

// A copy takes entries out of segments of one format and puts them into one of its own.
func TestACopyBetweenFormats(t *testing.T) {
	for _, formats := range [][2]int{{1, 2}, {2, 1}, {2, 2}} {
		source, h := newHeldOf(t, formats[0]), newHeldOf(t, formats[1])
		source.store(1, 20, 1)
		source.apply(20)
		source.mustSnapshot()
		h.store(1, 3, 1)
		d := copyFrom(t, source, h)
		s, err := h.Stage(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(d); err != nil {
			t.Fatal(err)
		}
		if err := h.Adopt(s); err != nil {
			t.Fatal(err)
		}
		h.crash(1)
		if err := h.holds([]uint64{20}, []uint64{1}); err != nil {
			t.Errorf("from format %d to %d: %v", formats[0], formats[1], err)
		}
		h.store(21, 22, 1)
		for _, o := range []*held{source, h} {
			o.PartitionLog.Close()
			o.st.Close()
		}
	}
}
