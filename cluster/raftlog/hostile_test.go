package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// What clients send may look like anything: an entry of the log that it gets into, a batch of the
// journal.

// forgedEntries gives what looks like entries that begin appends behind the entry at index, as good
// as can be without knowing a secret, for data that begin at pos.
func forgedEntries(random *rand.Rand, index uint64, pos int64, size int) (data []byte) {
	for i := uint64(0); len(data) < size; i++ {
		guess := framing{}
		if random.IntN(2) == 0 {
			guess = framing{stamped: true, secret: []uint64{0, uint64(-pos), random.Uint64()}[random.IntN(3)]}
		}
		entry := &raft.Log{Index: index + 1 + random.Uint64N(i/2+1), Term: 1, Data: make([]byte, random.IntN(80))}
		data, _, _ = appendFrame(data, guess, pos+int64(len(data)), entry, random.Uint32(), flagCallStart)
	}
	return data[:size&^(frameAlign-1)]
}

// An append of records that look like entries of the log itself, torn by a loss of power, is torn
// and not damaged: with one replica there would be nothing to make it anew from. In format 1 that
// could be forged.
func TestATornAppendOfRecordsThatLookLikeEntries(t *testing.T) {
	for format := 1; format <= segmentFormat; format++ {
		refused := 0
		for seed := range uint64(50) {
			mem := vfs.NewMem()
			mem.MkdirAll("/data")
			mem.SyncDir("/")
			random := rand.New(rand.NewPCG(seed, 5))
			opts := Options{FS: mem, JournalBytes: 8 << 10, BypassBytes: 700, ReserveBytes: -1, Format: format}
			logOpts := LogOptions{Group: "g", Span: testSpan, Fresh: true}
			st, err := OpenStore("/data", opts)
			if err != nil {
				t.Fatal(err)
			}
			l, err := st.OpenLog(fuzzedDir, logOpts)
			if err != nil {
				t.Fatal(err)
			}
			for i := uint64(1); i <= 5; i++ {
				if err := l.StoreLog(entry(i, 1)); err != nil {
					t.Fatal(err)
				}
			}
			mem.OnStep(func(op, name string) {
				if op == "sync" && strings.HasSuffix(name, segmentSuffix) {
					mem.Stop()
				}
			})
			s := l.segments[0]
			forged := forgedEntries(random, 6, s.end+int64(s.framing.header()), 1<<10+random.IntN(4<<10))
			if err := l.StoreLog(&raft.Log{Index: 6, Term: 1, Data: forged}); !errors.Is(err, os.ErrClosed) {
				t.Fatal(err)
			}
			l.Close()
			st.Close()
			opts.FS = mem.Crash(random)
			if st, err = OpenStore("/data", opts); err != nil {
				t.Fatal(err)
			}
			l, err = st.OpenLog(fuzzedDir, logOpts)
			switch {
			case format == 1 && errors.Is(err, ErrDamaged):
				refused++
			case err != nil:
				t.Errorf("format %d, seed %d: %v", format, seed, err)
			default:
				if last, _ := l.LastIndex(); last != 5 && last != 6 {
					t.Errorf("format %d, seed %d: it ends at entry %d", format, seed, last)
				}
				if err := (&held{PartitionLog: l}).holdsFirst(5); err != nil {
					t.Errorf("format %d, seed %d: %v", format, seed, err)
				}
				l.Close()
			}
			st.Close()
		}
		if format == 1 && refused < 10 {
			t.Errorf("%d of 50 are refused in format 1: nothing is forged", refused)
		}
	}
}

// holdsFirst gives an error unless the first n entries are those of term 1.
func (h *held) holdsFirst(n uint64) (wrong error) {
	index := uint64(1)
	err := h.Scan(0, func(e *raft.Log) bool {
		if want := entry(index, 1); e.Index != index || !bytes.Equal(e.Data, want.Data) {
			wrong = fmt.Errorf("entry %d is not what was stored", index)
		}
		index++
		return index <= n
	})
	return errors.Join(err, wrong)
}

// Entries that are damaged, and were acknowledged, are found by what stands behind them, as before.
func TestDamageInFrontOfALaterAppend(t *testing.T) {
	for format := 1; format <= segmentFormat; format++ {
		h := newHeldOf(t, format)
		h.store(1, 5, 1)
		s := h.segments[0]
		for _, at := range []int64{2, 9, 17, 41, 60} { // of entry 3, about
			disk := all(t, h.mem)
			b := disk[s.path]
			b[segmentHeader+2*s.framing.size(entry(1, 1))+at] ^= 4
			for name := range disk {
				if strings.Contains(name, "/journal/") {
					clear(disk[name])
				}
			}
			if refused, err := opens(t, fromFiles(t, disk), 5, 5); err != nil || !refused {
				t.Errorf("format %d, at %d: refused %v, %v", format, at, refused, err)
			}
		}
		h.PartitionLog.Close()
		h.st.Close()
	}
}

// An entry counts only in its segment and at its position: a copy of its bytes elsewhere is none.
func TestAnEntryIsBoundToItsPlace(t *testing.T) {
	form := framing{stamped: true, secret: 1 << 40}
	b, _, err := appendFrame(nil, form, 640, entry(5, 1), 0, flagCallStart)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{632, 640, 648} {
		for _, secret := range []uint64{1<<40 - 1, 1 << 40, 0} {
			_, err := parseFrame(b, framing{stamped: true, secret: secret}, at)
			if good := at == 640 && secret == 1<<40; (err == nil) != good {
				t.Errorf("at %d with secret %x: %v", at, secret, err)
			}
		}
	}
	a, z := newFraming(true), newFraming(true)
	if a.secret == z.secret || a.secret == 0 {
		t.Errorf("two segments have the secrets %x and %x", a.secret, z.secret)
	}
}

// A sweep finds what is good, wherever it is and whatever reaches over it.
func TestASweepFindsWhatIsGood(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 9))
	content := make([]byte, 3*walkChunk+77)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	const from = 24
	for range 20 { // allocated ahead
		at := random.IntN(len(content))
		clear(content[at:min(at+random.IntN(6*zeroStep), len(content))])
	}
	zero := func(at int64) bool { return isZeroWord(content[at:]) }
	claimed := map[int64]claim{}
	want := map[int64]bool{}
	for at := int64(from); at+16 < int64(len(content)); at += frameAlign * (1 + random.Int64N(40)) {
		if zero(at) {
			continue
		}
		reach := []int64{9, 1000, 2 * walkChunk, int64(len(content))}[random.IntN(4)]
		c := claim{at: at, skip: uint8(4 + 4*random.IntN(2)), to: at + 8 + random.Int64N(reach), tag: uint64(at)}
		if c.to <= int64(len(content)) {
			c.crc = crc32.Checksum(content[at+int64(c.skip):c.to], castagnoli)
			if want[at] = random.IntN(3) > 0; !want[at] {
				c.crc ^= 1 << random.IntN(32)
			}
		}
		claimed[at] = c
	}
	got, looked := map[int64]bool{}, map[int64]bool{}
	end := int64(0)
	hashed, err := sweep(bytes.NewReader(content), from, int64(len(content)), 16, func(at int64, b []byte) (claim, bool) {
		if !bytes.Equal(b, content[at:min(at+16, int64(len(content)))]) {
			t.Fatalf("at %d it sees %x", at, b)
		}
		looked[at] = true
		c, ok := claimed[at]
		return c, ok
	}, func(c claim) bool {
		if c.to < end || c.tag != uint64(c.at) {
			t.Errorf("claim at %d ends at %d, after one that ends at %d", c.at, c.to, end)
		}
		end = c.to
		got[c.at] = true
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for at := int64(from); at < int64(len(content)); at += frameAlign {
		if !looked[at] && !zero(at) {
			t.Fatalf("what is at %d is not looked at", at)
		}
		if !looked[at] {
			passed++
		}
	}
	if passed == 0 {
		t.Error("zeros are looked at, too")
	}
	for at, good := range want {
		if got[at] != good {
			t.Errorf("the claim %+v is found: %v, want %v", claimed[at], got[at], good)
		}
	}
	if most := int64(len(content) + 8*len(claimed)); hashed > most {
		t.Errorf("%d bytes hashed, %d would do", hashed, most)
	}
}

// forgedClaims fills b with headers that claim as many bytes as there are behind them, or as may
// be, one behind the other.
func forgedClaims(b []byte, header int, write func(b []byte, behind int)) {
	for at := 0; at+header <= len(b); at += header {
		write(b[at:at+header], len(b)-at-header)
	}
}

// forgedFrames are for an entry behind that at index last.
func forgedFrames(b []byte, last uint64) {
	forgedClaims(b, frameHeader, func(b []byte, behind int) {
		le := binary.LittleEndian
		le.PutUint32(b, 0x5eed)
		le.PutUint32(b[8:], uint32(behind))
		b[14], b[15] = byte(raft.LogCommand), flagCallStart
		le.PutUint64(b[16:], last+2)
	})
}

// forgedBatches are for the journal's epoch.
func forgedBatches(b []byte, magic string, epoch uint64) {
	forgedClaims(b, batchHeader, func(b []byte, behind int) {
		le := binary.LittleEndian
		copy(b, magic)
		le.PutUint64(b[8:], epoch)
		le.PutUint64(b[16:], 1<<30)
		le.PutUint32(b[24:], uint32(min(behind, maxJournalBatch))&^7)
	})
}

// What a start looks through costs as much as it has bytes, whatever they look like.
func TestARestartHashesEachByteOnce(t *testing.T) {
	const size = 4 << 20
	for format := 1; format <= segmentFormat; format++ {
		s := &segment{base: 1, framing: newFraming(format > 1), allocated: size}
		b := make([]byte, size)
		forgedFrames(b[8:], 7)
		later, end, hashed, err := s.behind(bytes.NewReader(b), 0, 7)
		if err != nil || later != 0 || end < size-frameHeader {
			t.Errorf("format %d: entry %d, zeros from %d on, %v", format, later, end, err)
		}
		most := int64(size + size/frameHeader*4)
		if format > 1 {
			most = 0 // nothing has the stamp
		}
		if hashed > most {
			t.Errorf("format %d: %d bytes of a segment hashed, %d would do", format, hashed, most)
		}
	}
}

// hostileJournal makes a data directory that a node left behind when it died: six files of the
// journal, of records that look like batches and like entries. The last is half written over. It
// gives the entries of the log that must be there.
func hostileJournal(t *testing.T, dir string, format, bytes int) (entries uint64) {
	t.Helper()
	st, err := OpenStore(dir, Options{Format: format, JournalBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	l, err := st.OpenLog(filepath.Join(st.Groups(), "g"), LogOptions{Group: "g", Span: testSpan, Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	for entries = 1; entries <= 3; entries++ {
		if err := l.StoreLog(entry(entries, 1)); err != nil {
			t.Fatal(err)
		}
	}
	s := l.segments[0]
	id, pos := s.id.Load(), s.end
	st.fail(errors.New("the test ends it"))
	l.Close()
	st.Close()

	const epoch = 9
	hostile := make([]byte, 60<<10)
	forgedBatches(hostile[:20<<10], batchMagic1, epoch)
	forgedBatches(hostile[20<<10:40<<10], batchMagic2, epoch)
	forgedFrames(hostile[40<<10:], 7)
	chain := s.chain
	seq := uint64(0)
	var buf []byte
	for number := range maxJournalFiles {
		file := &journalFile{form: batching(newFraming(format > 1))}
		content := make([]byte, bytes)
		if format > 1 {
			copy(content, file.form.fileHeader())
		}
		at := file.form.start()
		for {
			data, crc, err := appendFrame(nil, s.framing, pos, &raft.Log{Index: entries, Term: 1, Data: hostile}, chain, flagCallStart)
			if err != nil {
				t.Fatal(err)
			}
			seq++
			buf = encodeBatch(buf, file.form, at, epoch, seq, []*journalWrite{{id: id, pos: pos, data: data}})
			if at+int64(len(buf)) > int64(bytes) || number == maxJournalFiles-1 && at > int64(bytes)/2 {
				seq--
				break
			}
			copy(content[at:], buf)
			at += int64(len(buf))
			chain, pos = crc, pos+int64(len(data))
			entries++
		}
		if number == maxJournalFiles-1 {
			forgedBatches(content[at+8:], batchMagic1, epoch) // what a round before has left
			for at += 1 << 10; at < int64(bytes); at += 64 << 10 {
				binary.LittleEndian.PutUint64(content[at&^7:], id)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "journal", fmt.Sprintf(journalNamesakes, number)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return entries - 1
}

// A start plays back a journal that is full of records that look like batches: it hashes a byte of
// it a few times at most, and holds a batch in memory, not a file.
func TestARestartWithHostileRecords(t *testing.T) {
	const bytes = 12 << 20
	for format := 1; format <= segmentFormat; format++ {
		dir := t.TempDir()
		last := hostileJournal(t, dir, format, bytes)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		st, err := OpenStore(dir, Options{JournalBytes: 1 << 20, ReserveBytes: -1, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		const all = maxJournalFiles * bytes
		if hashed := st.journal.replayed; hashed > 3*all {
			t.Errorf("format %d: %d bytes of a journal of %d hashed", format, hashed, int64(all))
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
			t.Errorf("format %d: a journal of %d bytes takes %d of memory", format, int64(all), took)
		}
		l, err := st.OpenLog(filepath.Join(st.Groups(), "g"), LogOptions{Group: "g", Span: testSpan})
		if err != nil {
			t.Fatal(err)
		}
		if l.last != last {
			t.Errorf("format %d: it ends at entry %d, want %d", format, l.last, last)
		}
		if st.stamping() != (format > 1) {
			t.Errorf("format %d: new files are of format 2: %v", format, st.stamping())
		}
		l.Close()
		st.Close()
	}
}

// A batch that is damaged, with good ones behind it, is found in both formats, and one of another
// round is not taken for it.
func TestABadBatchInFrontOfGoodOnes(t *testing.T) {
	for format := 1; format <= segmentFormat; format++ {
		h := newHeldOf(t, format)
		h.store(1, 8, 1)
		disk := all(t, h.mem)
		h.PartitionLog.Close()
		h.st.Close()
		for name, b := range disk {
			if !strings.Contains(name, "/journal/") {
				continue
			}
			form := batching{}
			if format > 1 {
				form = batching{stamped: true, secret: binary.LittleEndian.Uint64(b[16:])}
			}
			// The batch behind the first one that has an append.
			at := form.start() + int64(form.header())
			at += int64(form.header()) + int64(binary.LittleEndian.Uint32(b[at+24:]))
			for _, offset := range []int64{0, 5, 9, 25, 35, 50} {
				spoiled := slices.Clone(b)
				spoiled[at+offset] ^= 2
				disk[name] = spoiled
				if refused, err := opens(t, fromFiles(t, disk), 8, 8); err != nil || !refused {
					t.Errorf("format %d, %s at %d: refused %v, %v", format, name, at+offset, refused, err)
				}
			}
			disk[name] = b
		}
	}
}

// A log goes on in format 2 at its next append once the store is told to, and stays there.
func TestAnUpgradeBeginsNewSegments(t *testing.T) {
	for _, empty := range []bool{false, true} {
		h := newHeldOf(t, 1)
		h.store(1, 3, 1)
		h.apply(3)
		if empty { // the last segment
			if err := h.EndSegment(h.next, 3, nil); err != nil {
				t.Fatal(err)
			}
		}
		r, err := h.ReadAt(0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			e, err := r.Next(100)
			if err != nil {
				t.Fatal(err)
			}
			next, _ := testSpan(&e, r.Expected())
			r.Passed(next)
		}
		if _, err := r.Next(100); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		h.st.Upgrade()
		h.store(4, 6, 1)
		// It stands at the end of what was there, or in the empty segment.
		if e, err := r.Next(100); err != nil || e.Index != 4 {
			t.Errorf("empty %v: entry %d, %v", empty, e.Index, err)
		}
		r.Close()
		if n := len(h.segments); n != 2 || h.segments[0].framing.stamped || !h.segments[1].framing.stamped {
			t.Errorf("empty %v: %d segments", empty, n)
		}
		h.format = 0
		for seed := range uint64(3) {
			h.crash(seed)
			last := 6 + seed
			if err := h.holds([]uint64{last}, []uint64{1}); err != nil {
				t.Errorf("empty %v: %v", empty, err)
			}
			if !h.st.stamping() || !h.st.journal.current.form.stamped {
				t.Errorf("empty %v: new files are of format 1 again", empty)
			}
			h.store(last+1, last+1, 1)
		}
		h.PartitionLog.Close()
		h.st.Close()
	}
}

// Without being told a store writes what older programs read: a node can go back to one.
func TestNothingIsOfFormat2BeforeAnUpgrade(t *testing.T) {
	h := newHeldOf(t, 0)
	h.store(1, 30, 1)
	h.apply(30)
	h.mustSnapshot()
	h.crash(1)
	h.store(31, 60, 1)
	for name, b := range all(t, h.mem) {
		switch {
		case strings.HasSuffix(name, segmentSuffix) && string(b[:8]) != segmentMagic+"\x01",
			strings.HasSuffix(name, ".journal") && !allZero(b[:4]) && string(b[:4]) != batchMagic1:
			t.Errorf("%s begins with %q", name, b[:8])
		}
	}
	h.PartitionLog.Close()
	h.st.Close()
}

// The power goes while the head of an empty segment is written over.
func TestAnUpgradeThatIsCutShort(t *testing.T) {
	var upgrades atomic.Int64
	crashes(t, func() *held {
		h := newHeldOf(t, 1)
		h.store(1, 3, 1)
		h.apply(3)
		if err := h.EndSegment(h.next, 3, nil); err != nil {
			t.Fatal(err)
		}
		return h
	}, func(h *held) error {
		h.st.Upgrade()
		upgrades.Add(1)
		return h.StoreLog(entry(4, 1))
	}, func(h *held, whole bool) error {
		if whole || h.last == 4 {
			return h.holds([]uint64{4}, []uint64{1})
		}
		return h.holds([]uint64{3}, []uint64{1})
	})
	if upgrades.Load() < 8 {
		t.Errorf("%d upgrades were tried", upgrades.Load())
	}
}
