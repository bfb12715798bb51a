package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// machine is the replicated state of the catalog at this node. What a newer program wrote into the
// log or a snapshot (fsm.ErrNewer) ends it: nothing is applied from there on, no snapshot is taken,
// and since a node without its catalog does not know what it should do, the node ends.
type machine struct {
	fail func(error) // ends the node; it does not wait
	// told the cluster's feature level when an entry was applied; it does not wait
	reached func(level int)

	view atomic.Pointer[fsm.Topics]

	// mu guards the fields below. Nothing is called and no other lock taken while it is held.
	mu      locks.Mutex[machine]
	state   *fsm.Catalog
	index   fsm.Index     // of the last entry applied
	newer   error         // what a newer program wrote was met: nothing behind it is applied
	changed chan struct{} // closed and replaced whenever index or the leader moves
}

func newMachine(fail func(error), reached func(level int)) *machine {
	m := &machine{fail: fail, reached: reached, state: fsm.NewCatalog(), changed: make(chan struct{})}
	m.view.Store(m.state.View())
	return m
}

func (m *machine) wakeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// wake lets everybody look again who waits for something to change.
func (m *machine) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakeLocked()
}

// now gives the index of the last entry applied, and a channel that is closed when that or the
// leader moves.
func (m *machine) now() (fsm.Index, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.changed
}

// outgrown is what a newer program wrote and was met here; nil: nothing.
func (m *machine) outgrown() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newer
}

// awaitIndex returns when the entry of that index is applied. The error is outcome.ErrTimeout when
// ctx ends first.
func (m *machine) awaitIndex(ctx context.Context, index fsm.Index) error {
	for {
		at, changed := m.now()
		if at >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: the change is made and not yet known here", outcome.ErrTimeout)
		}
	}
}

// Apply implements raft.FSM. The answer is an fsm.CatalogResult.
func (m *machine) Apply(entry *raft.Log) any {
	result, level, met := m.apply(entry)
	if met {
		m.fail(result.Err)
	}
	if level > 0 {
		m.featureLevelReached(level)
	}
	return result
}

// apply gives the cluster's feature level where the entry was applied, 0 where not; met says that a
// newer program wrote it.
func (m *machine) apply(entry *raft.Log) (result fsm.CatalogResult, level int, met bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newer != nil {
		return fsm.CatalogResult{Err: m.newer}, 0, false
	}
	result = m.state.Apply(fsm.Index(entry.Index), entry.Data)
	if result.Err != nil && errors.Is(result.Err, fsm.ErrNewer) {
		m.newer = fmt.Errorf("catalog, entry %d: %w", entry.Index, result.Err)
		return fsm.CatalogResult{Err: m.newer}, 0, true
	}
	m.index = fsm.Index(entry.Index)
	view := m.state.View()
	m.view.Store(view)
	m.wakeLocked()
	level = view.FeatureLevel()
	if level > fsm.FeatureLevel {
		// Whatever comes behind this may mean something else from now on.
		m.newer = fmt.Errorf("%w: %w", fsm.ErrNewer, tooOld(level))
	}
	return result, level, false
}

func tooOld(level int) error {
	return fmt.Errorf("the cluster is at level %d and this program knows %d: start a newer one", level, fsm.FeatureLevel)
}

func (m *machine) featureLevelReached(level int) {
	if level > fsm.FeatureLevel {
		m.fail(tooOld(level))
	}
	m.reached(level)
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newer != nil {
		return nil, m.newer // Raft takes what came behind it for applied
	}
	return raftgroup.SnapshotBytes(m.state.Snapshot()), nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(source io.ReadCloser) error {
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, raftgroup.MaxSnapshotBytes))
	if err != nil {
		return err
	}
	state, err := fsm.RestoreCatalog(data)
	if errors.Is(err, fsm.ErrNewer) {
		m.mu.Lock()
		m.newer = err
		m.mu.Unlock()
		m.fail(err) // or its leader would send it for ever
	}
	if err != nil {
		return err
	}
	view := state.View()
	m.mu.Lock()
	m.state, m.index = state, state.LastApplied()
	m.view.Store(view)
	m.wakeLocked()
	m.mu.Unlock()
	m.featureLevelReached(view.FeatureLevel())
	return nil
}
