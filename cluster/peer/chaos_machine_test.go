package peer_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ledger is a state machine that tells the checker what it applies and chains it.
type ledger struct {
	check       *checker
	group, node string

	mu  sync.Mutex
	log []entry
	pad int
}

// appliedAt is what Apply answers: where the entry stands.
type appliedAt struct{ index, term uint64 }

func (l *ledger) last() (uint64, chain) {
	if n := len(l.log); n > 0 {
		return l.log[n-1].index, l.log[n-1].chain
	}
	return 0, chain{}
}

func (l *ledger) Apply(e *raft.Log) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, before := l.last()
	sum := before.next(e.Index, e.Term, e.Data)
	l.log = append(l.log, entry{index: e.Index, term: e.Term, data: string(e.Data), chain: sum, by: l.node})
	l.check.applied(l.group, l.node, e.Index, e.Term, e.Data, sum)
	return appliedAt{e.Index, e.Term}
}

// entries gives everything applied.
func (l *ledger) entries() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]entry(nil), l.log...)
}

type savedEntry struct {
	Index, Term uint64
	Data        string
}

type savedLedger struct {
	Log   []savedEntry
	Chain []byte
	Pad   []byte
}

func (l *ledger) Snapshot() (raft.FSMSnapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := savedLedger{Pad: padding(l.pad)}
	for _, e := range l.log {
		s.Log = append(s.Log, savedEntry{e.index, e.term, e.data})
	}
	_, sum := l.last()
	s.Chain = sum[:]
	return s, nil
}

func (s savedLedger) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s savedLedger) Release() {}

// Restore takes the chain from the snapshot and compares it with what its entries give.
func (l *ledger) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	var s savedLedger
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = l.log[:0:0]
	var sum chain
	for _, e := range s.Log {
		sum = sum.next(e.Index, e.Term, []byte(e.Data))
		l.log = append(l.log, entry{index: e.Index, term: e.Term, data: e.Data, chain: sum, by: l.node})
	}
	if !bytes.Equal(sum[:], s.Chain) || !bytes.Equal(s.Pad, padding(len(s.Pad))) {
		l.check.fail("%s: %s got a snapshot that is not what was saved", l.group, l.node)
	}
	index, _ := l.last()
	l.check.restored(l.group, l.node, index, sum)
	return nil
}

// disk is what a replica keeps through a crash. It can hang, and the checker hears what is written.
type disk struct {
	*raft.InmemStore
	check       *checker
	group, node string
	snaps       snapshots

	mu       sync.Mutex
	stuck    chan struct{} // nil: it works
	voteTerm uint64
}

func newDisk(c *checker, group, node string) *disk {
	return &disk{InmemStore: raft.NewInmemStore(), check: c, group: group, node: node}
}

// IsMonotonic implements raft.MonotonicLogStore: Raft then empties the log when it installs a snapshot. Else it keeps entries
// below the snapshot's end that may be another leader's than those that the snapshot stands for, with a
// hole behind them, and sends them to others when it leads.
func (d *disk) IsMonotonic() bool { return true }

// hang makes writes of entries wait, or go on.
func (d *disk) hang(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case on && d.stuck == nil:
		d.stuck = make(chan struct{})
	case !on && d.stuck != nil:
		close(d.stuck)
		d.stuck = nil
	}
}

func (d *disk) wait() {
	d.mu.Lock()
	stuck := d.stuck
	d.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	d.wait()
	for _, l := range logs {
		d.check.stored(d.group, d.node, l.Index, l.Term, l.Data)
	}
	return d.InmemStore.StoreLogs(logs)
}

// DeleteRange implements raft.LogStore: from the beginning to shorten the log, to the end to drop what is wrong.
func (d *disk) DeleteRange(from, to uint64) error {
	first, _ := d.FirstIndex()
	last, _ := d.LastIndex()
	if last == 0 {
		return nil // raft empties an empty log, too, which InmemStore does not survive
	}
	if from > first && to >= last {
		d.check.truncated(d.group, d.node, from)
	}
	return d.InmemStore.DeleteRange(from, to)
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, v uint64) error {
	switch string(key) {
	case "CurrentTerm":
		d.check.reached(d.group, d.node, v)
	case "LastVoteTerm":
		d.mu.Lock()
		d.voteTerm = v
		d.mu.Unlock()
	}
	return d.InmemStore.SetUint64(key, v)
}

// Set implements raft.StableStore. Raft writes the term of its vote first.
func (d *disk) Set(key, v []byte) error {
	if string(key) == "LastVoteCand" {
		d.mu.Lock()
		term := d.voteTerm
		d.mu.Unlock()
		d.check.voted(d.group, d.node, term, string(v))
	}
	return d.InmemStore.Set(key, v)
}

// snapshots keeps the last snapshot that was completed; raft's own store in memory shows one that is still being written.
type snapshots struct {
	mu   sync.Mutex
	meta *raft.SnapshotMeta
	data []byte
	made int
}

func (s *snapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	return &sink{store: s, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d-%d", term, index, s.made), Index: index, Term: term, Configuration: c, ConfigurationIndex: at,
	}}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.meta}, nil
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil || s.meta.ID != id {
		return nil, nil, fmt.Errorf("no snapshot %s", id)
	}
	return s.meta, io.NopCloser(bytes.NewReader(s.data)), nil
}

type sink struct {
	store *snapshots
	meta  raft.SnapshotMeta
	bytes.Buffer
	over bool
}

func (s *sink) ID() string    { return s.meta.ID }
func (s *sink) Cancel() error { s.over = true; return nil }

func (s *sink) Close() error {
	if s.over {
		return nil
	}
	s.over = true
	s.meta.Size = int64(s.Len())
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.meta, s.store.data = &s.meta, s.Bytes()
	return nil
}

// observe tells the checker of every election that a Raft has won: the filter runs on its main goroutine, in the term.
func observe(r *raft.Raft, c *checker, group, node string) {
	r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if s, ok := o.Data.(raft.RaftState); ok {
			c.event("%s: %s is %v in term %d", group, node, s, o.Raft.CurrentTerm())
			if s == raft.Leader {
				c.claim(group, o.Raft.CurrentTerm(), node, "elected")
			}
		}
		return false
	}))
}

// seconds gives a duration from a number of them.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// mix makes a seed of names.
func mix(parts ...string) (h uint64) {
	h = 14695981039346656037
	for _, p := range parts {
		b := binary.AppendUvarint(nil, uint64(len(p)))
		for _, x := range append(b, p...) {
			h = (h ^ uint64(x)) * 1099511628211
		}
	}
	return h
}
