package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// ends notes what a machine tells its node.
type ends struct {
	why    error
	levels []int
}

func (e *ends) machine() *machine {
	return newMachine(func(err error) {
		if e.why == nil {
			e.why = err
		}
	}, func(level int) { e.levels = append(e.levels, level) })
}

// log applies commands, one entry each, behind those of before.
type log struct {
	to    raft.FSM
	index uint64
}

func (l *log) raw(data []byte) fsm.CatalogResult {
	l.index++
	return l.to.Apply(&raft.Log{Index: l.index, Term: 1, Data: data}).(fsm.CatalogResult)
}

func (l *log) add(t *testing.T, command fsm.CatalogCommand) fsm.CatalogResult {
	t.Helper()
	result := l.raw(command.Encode())
	if result.Err != nil {
		t.Fatalf("%+v: %v", command, result.Err)
	}
	return result
}

func node(id fsm.NodeID) fsm.Node {
	return fsm.Node{ID: id, Incarnation: "0000000" + string(id[1:]), FeatureLevel: fsm.FeatureLevel}
}

// formed writes a cluster of those nodes, at the newest level.
func (l *log) formed(t *testing.T, ids ...fsm.NodeID) {
	t.Helper()
	form := &fsm.FormCluster{ClusterID: "c"}
	for _, id := range ids {
		form.Nodes = append(form.Nodes, node(id))
	}
	l.add(t, fsm.CatalogCommand{FormCluster: form})
	for _, n := range form.Nodes {
		l.add(t, fsm.CatalogCommand{RegisterNode: &n})
	}
	l.add(t, fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.FeatureLevel}})
}

// later makes a snapshot one of the next version, with a right checksum.
func later(snapshot []byte) []byte {
	b := bytes.Clone(snapshot)
	binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])+1)
	body := b[:len(b)-4]
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

type source struct{ *bytes.Reader }

func (source) Close() error { return nil }

func snapshotOf(t *testing.T, m *machine) []byte {
	t.Helper()
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s.(raftgroup.SnapshotBytes)
}

// What a newer program wrote is not applied, nor what is behind it; no snapshot says that it was,
// and the node ends.
func TestTheCatalogEndsWhereANewerProgramHasWritten(t *testing.T) {
	e := new(ends)
	m := e.machine()
	l := &log{to: m}
	l.formed(t, "n1")
	before := m.view.Load()
	if result := l.raw([]byte(`{"version":1,"rename_topic":{"from":"a","to":"b"}}`)); !errors.Is(result.Err, fsm.ErrNewer) {
		t.Errorf("it was applied: %+v", result)
	}
	if !errors.Is(e.why, fsm.ErrNewer) || !strings.Contains(e.why.Error(), "rename_topic") {
		t.Errorf("the node ends with: %v", e.why)
	}
	behind := fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: 1}}
	if result := l.raw(behind.Encode()); !errors.Is(result.Err, fsm.ErrNewer) {
		t.Errorf("what is behind was applied: %+v", result)
	}
	if m.view.Load() != before {
		t.Error("the catalog went on")
	}
	if _, err := m.Snapshot(); !errors.Is(err, fsm.ErrNewer) {
		t.Errorf("it takes a snapshot: %v", err)
	}
}

// A level that this program does not know ends the node when it is applied, and nothing behind it
// is.
func TestTheCatalogEndsWhereTheFeatureLevelIsTooHigh(t *testing.T) {
	e := new(ends)
	m := e.machine()
	l := &log{to: m}
	l.formed(t, "n1")
	if e.why != nil || e.levels[len(e.levels)-1] != fsm.FeatureLevel {
		t.Errorf("levels %v, %v", e.levels, e.why)
	}
	newer := node("n1")
	newer.FeatureLevel++
	l.add(t, fsm.CatalogCommand{RegisterNode: &newer})
	raise := fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: newer.FeatureLevel}}
	l.raw(raise.Encode())
	if e.why == nil || !strings.Contains(e.why.Error(), "start a newer one") {
		t.Errorf("the node ends with: %v", e.why)
	}
	if result := l.raw(raise.Encode()); !errors.Is(result.Err, fsm.ErrNewer) {
		t.Errorf("what is behind was applied: %+v", result)
	}
}

func TestASnapshotIsTheCatalog(t *testing.T) {
	e := new(ends)
	m := e.machine()
	l := &log{to: m}
	l.formed(t, "n1", "n2")
	snapshot := snapshotOf(t, m)
	again := e.machine()
	changed := make(chan struct{})
	_, waits := again.now()
	go func() { <-waits; close(changed) }()
	if err := again.Restore(source{bytes.NewReader(snapshot)}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if !bytes.Equal(snapshotOf(t, again), snapshot) || len(again.view.Load().Nodes()) != 2 {
		t.Error("it is another catalog")
	}
	if at, _ := again.now(); at != fsm.Index(l.index) {
		t.Errorf("it is at %d, want %d", at, l.index)
	}
	if e.why != nil {
		t.Errorf("the node ends: %v", e.why)
	}
	if err := again.Restore(source{bytes.NewReader(later(snapshot))}); !errors.Is(err, fsm.ErrNewer) || !errors.Is(e.why, fsm.ErrNewer) {
		t.Errorf("one of tomorrow: %v, and the node ends with: %v", err, e.why)
	}
	if err := again.outgrown(); !errors.Is(err, fsm.ErrNewer) {
		t.Errorf("nobody knows: %v", err)
	}
}

func TestAnIndexIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(ends).machine()
		l := &log{to: m}
		l.formed(t, "n1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.awaitIndex(ctx, fsm.Index(l.index)); err != nil {
			t.Error(err)
		}
		waits := make(chan error)
		go func() { waits <- m.awaitIndex(ctx, fsm.Index(l.index+2)) }()
		synctest.Wait()
		m.wake() // nothing has changed
		l.add(t, fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: 1}})
		synctest.Wait()
		select {
		case err := <-waits:
			t.Fatalf("too early: %v", err)
		default:
		}
		l.add(t, fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: 1}})
		if err := <-waits; err != nil {
			t.Error(err)
		}
		if err := m.awaitIndex(ctx, fsm.Index(l.index+1)); outcome.Code(err) != outcome.ErrTimeout {
			t.Errorf("an entry that does not come: %v", err)
		}
	})
}
