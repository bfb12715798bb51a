package raftlog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// Bytes on a disk are not to be trusted: whatever a file holds, opening it ends
// with a log that can be read or with an error, not with a panic, and takes no more
// memory than the file has bytes. Files are given whole and with a good CRC: what
// the CRC lets through is where decoders are tried.

// files is what a store of one log holds on its disk.
func files(tb testing.TB, format int) (mem *vfs.Mem, names map[string]string) {
	mem = vfs.NewMem()
	mem.MkdirAll("/data")
	st, err := OpenStore("/data", Options{FS: mem, JournalBytes: 8 << 10, BypassBytes: 700, ReserveBytes: -1, Format: format})
	if err != nil {
		tb.Fatal(err)
	}
	h := &held{mem: mem, st: st}
	if h.PartitionLog, err = st.OpenLog(fuzzedDir, fuzzedOptions()); err != nil {
		tb.Fatal(err)
	}
	names = map[string]string{"manifest": filepath.Join(fuzzedDir, manifestName)}
	for i := uint64(1); i <= 30; i++ {
		if err := h.StoreLog(entry(i, 1)); err != nil {
			tb.Fatal(err)
		}
		if h.Crosses(i) {
			h.Cross(i, []byte("state"))
		}
		_, next := h.LastApplied()
		after, newest := testSpan(entry(i, 1), next)
		h.Applied(i, after, newest, int64(i))
		if i == 20 {
			if err := h.snapshot(1); err != nil {
				tb.Fatal(err)
			}
		}
	}
	first, last := h.segments[0], h.segments[len(h.segments)-1]
	names["complete"], names["last"] = first.path, last.path
	names["final index"], names["index"] = indexPath(first.path), indexPath(h.find(20).path)
	names["journal"] = "/data/journal/000000.journal"
	// No Close: the journal still counts.
	h.mem.Stop()
	h.PartitionLog.Close()
	st.Close()
	return mem.Crash(rand.New(rand.NewPCG(1, 1))), names
}

const fuzzedDir = "/data/partitions/g"

func fuzzedOptions() LogOptions {
	return LogOptions{Group: "g", Span: testSpan, Trailing: 3, Fresh: true, SegmentBytes: func() int64 { return 2000 }}
}

func content(tb testing.TB, mem *vfs.Mem, name string) []byte {
	f, err := mem.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	size, _ := f.Size()
	b := make([]byte, size)
	f.ReadAt(b, 0)
	return b
}

// all gives the content of every file.
func all(tb testing.TB, mem *vfs.Mem) map[string][]byte {
	found := map[string][]byte{}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := mem.List(dir)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range entries {
			if name := filepath.Join(dir, e.Name); e.Dir {
				walk(name)
			} else {
				found[name] = content(tb, mem, name)
			}
		}
	}
	walk("/data")
	return found
}

// fuzzFile puts any bytes in the place of one file of a log and opens it.
func fuzzFile(f *testing.F, which string, repair func([]byte)) {
	type disk struct {
		files map[string][]byte
		name  string
	}
	var disks []disk
	for format := 1; format <= segmentFormat; format++ {
		mem, names := files(f, format)
		d := disk{all(f, mem), names[which]}
		disks = append(disks, d)
		good := d.files[d.name]
		f.Add(good)
		f.Add(good[:len(good)/2])
		for at := 4; at < len(good); at += 1 + len(good)/40 {
			b := bytes.Clone(good)
			b[at] ^= 0xff
			f.Add(b)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		for _, mended := range []bool{false, true} {
			if mended {
				b = bytes.Clone(b)
				repair(b)
			}
			for _, d := range disks {
				openFuzzed(t, d.files, d.name, b)
			}
		}
	})
}

func openFuzzed(t *testing.T, disk map[string][]byte, which string, b []byte) {
	mem := vfs.NewMem()
	for name, data := range disk {
		mem.MkdirAll(filepath.Dir(name))
		file, err := mem.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == which {
			data = b
		}
		file.WriteAt(data, 0)
	}
	st, err := OpenStore("/data", Options{FS: mem, JournalBytes: -1, ReserveBytes: -1})
	if err != nil {
		return // refused
	}
	defer st.Close()
	l, err := st.OpenLog(fuzzedDir, fuzzedOptions())
	if err != nil {
		return // refused
	}
	defer l.Close()
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if s := l.SnapshotIndex(); last < s && last != 0 || first > s+1 && s != 0 {
		t.Fatalf("entries %d to %d, snapshot of entry %d", first, last, s)
	}
	want := uint64(0)
	_ = l.Scan(0, func(e *raft.Log) bool {
		if want != 0 && e.Index != want {
			t.Fatalf("entry %d where %d should be", e.Index, want)
		}
		want = e.Index + 1
		return true
	})
	for _, s := range l.Segments() {
		if s.Start >= 0 {
			if r, err := l.ReadAt(s.Start, 1000); err == nil {
				_, _ = r.Next(last)
				r.Close()
			}
		}
	}
}

func FuzzManifest(f *testing.F)    { fuzzFile(f, "manifest", repairManifest) }
func FuzzSegment(f *testing.F)     { fuzzFile(f, "complete", repairSegment) }
func FuzzLastSegment(f *testing.F) { fuzzFile(f, "last", repairSegment) }
func FuzzFinalIndex(f *testing.F)  { fuzzFile(f, "final index", repairIndex) }
func FuzzIndex(f *testing.F)       { fuzzFile(f, "index", func([]byte) {}) }
func FuzzJournal(f *testing.F)     { fuzzFile(f, "journal", repairJournal) }

// FuzzParseEntries reads what another node sends of its log.
func FuzzParseEntries(f *testing.F) {
	var good []byte
	for i := uint64(1); i <= 3; i++ {
		good, _, _ = appendFrame(good, framing{}, 0, entry(i, 1), 0, 0)
	}
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			entries, err := ParseEntries(b)
			size := 0
			for i, e := range entries {
				if size += len(e.Data) + len(e.Extensions); i > 0 && e.Index != entries[i-1].Index+1 {
					t.Fatalf("entry %d behind entry %d", e.Index, entries[i-1].Index)
				}
			}
			if size > len(b) || err != nil && len(entries) > 0 {
				t.Fatalf("%d bytes out of %d, %v", size, len(b), err)
			}
			b = bytes.Clone(b)
			repairFrames(b, framing{}, 0, 0)
		}
	})
}

func put(b []byte, at int, v uint32) {
	if len(b) >= at+4 {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
}

func sum(b []byte, from, to int) uint32 {
	if from > to || to > len(b) {
		return 0
	}
	return crc32.Checksum(b[from:to], castagnoli)
}

func repairManifest(b []byte) { put(b, 8, sum(b, 12, len(b))) }

func repairSegment(b []byte) {
	put(b, segmentHeader-4, sum(b, 0, segmentHeader-4))
	if head, err := readSegmentHeader("", bytes.NewReader(b)); err == nil && len(b) > segmentHeader {
		repairFrames(b[segmentHeader:], head.framing, segmentHeader, head.seed)
	}
}

// repairFrames makes a chain of what could be entries.
func repairFrames(b []byte, form framing, pos int64, chain uint32) {
	for len(b) >= form.header() {
		if form.stamped {
			binary.LittleEndian.PutUint64(b[frameHeader:], stamp(form.secret, pos))
		}
		fr, err := parseFrame(b, form, pos)
		if err != nil || fr.size() > int64(len(b)) {
			return
		}
		put(b, 4, chain)
		chain = fr.sum(b)
		put(b, 0, chain)
		pos += fr.size()
		b = b[fr.size():]
	}
}

func repairIndex(b []byte) {
	if len(b) < indexHeader {
		return
	}
	points := int64(indexHeader) + int64(binary.LittleEndian.Uint32(b[56:]))*pointSize
	if points <= int64(len(b)) {
		put(b, 64, sum(b, indexHeader, int(points)))
		put(b, 68, sum(b, int(points), len(b)))
	}
	put(b, indexHeader-4, sum(b, 0, indexHeader-4))
}

func repairJournal(b []byte) {
	form := batching{}
	if len(b) >= journalHeader && string(b[:8]) == journalMagic {
		put(b, journalHeader-4, sum(b, 0, journalHeader-4))
		form = batching{stamped: true, secret: binary.LittleEndian.Uint64(b[16:])}
	}
	for pos := form.start(); pos+int64(form.header()) <= int64(len(b)); {
		head := b[pos:]
		if form.stamped {
			binary.LittleEndian.PutUint64(head[batchHeader:], stamp(form.secret, pos))
		}
		size := int64(form.header()) + int64(binary.LittleEndian.Uint32(head[24:]))
		if size > int64(len(head)) {
			return
		}
		put(head, 4, sum(head, 8, int(size)))
		pos += size
	}
}
