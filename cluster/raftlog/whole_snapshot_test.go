package raftlog_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// nothing is a state machine that keeps nothing.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("not here") }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }

// TestASnapshotReplacesTheLog: the entries of a follower that gets a snapshot may be those of a
// leader that was deposed before they were committed. Were they kept below the snapshot, as far as
// trailing logs reach, this node would send them to others as committed when it leads.
func TestASnapshotReplacesTheLog(t *testing.T) {
	stable := raft.NewInmemStore()
	store, err := raftlog.OpenStore(t.TempDir(), raftlog.Options{JournalBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	log, err := store.OpenWholeLog(filepath.Join(t.TempDir(), "log"), raftlog.LogOptions{
		Group: "g", Fresh: true, Span: func(entry *raft.Log, _ int64) (int64, int64) { return int64(entry.Index) + 1, 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	var stale []*raft.Log
	for i := range uint64(20) {
		stale = append(stale, &raft.Log{Index: i + 1, Term: 1, Type: raft.LogNoop})
	}
	if err := log.StoreLogs(stale); err != nil {
		t.Fatal(err)
	}
	_, here := raft.NewInmemTransport("here")
	_, there := raft.NewInmemTransport("there")
	there.Connect("here", here)
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.Logger = "here", hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout = time.Hour, time.Hour
	cfg.TrailingLogs = 10_240
	r, err := raft.NewRaft(cfg, nothing{}, log, stable, log.Snapshots(), here)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Shutdown().Error() }()
	members := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "here", Address: "here"}, {ID: "there", Address: "there"}}})
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("there"), Addr: []byte("there")}
	data := []byte("all up to 50")
	var installed raft.InstallSnapshotResponse
	if err := there.InstallSnapshot("here", "here", &raft.InstallSnapshotRequest{
		RPCHeader: header, SnapshotVersion: 1, Term: 3, LastLogIndex: 50, LastLogTerm: 2, Size: int64(len(data)), Configuration: members, ConfigurationIndex: 1,
	}, &installed, bytes.NewReader(data)); err != nil || !installed.Success {
		t.Fatal(err, installed)
	}
	var appended raft.AppendEntriesResponse
	if err := there.AppendEntries("here", "here", &raft.AppendEntriesRequest{
		RPCHeader: header, Term: 3, PrevLogEntry: 50, PrevLogTerm: 2, Entries: []*raft.Log{{Index: 51, Term: 3, Type: raft.LogNoop}},
	}, &appended); err != nil || !appended.Success {
		t.Fatal(err, appended)
	}
	first, err := log.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	if first != 51 {
		t.Errorf("the log begins at %d, the snapshot ends at 50", first)
	}
	// The leader of term 3 has died. What it appended behind the snapshot is replaced by that of
	// the next one, which asks for the term of entry 50: it is in the snapshot and not in the log.
	header.ID, header.Addr = []byte("next"), []byte("next")
	_, next := raft.NewInmemTransport("next")
	next.Connect("here", here)
	if err := next.AppendEntries("here", "here", &raft.AppendEntriesRequest{
		RPCHeader: header, Term: 4, PrevLogEntry: 50, PrevLogTerm: 2, Entries: []*raft.Log{{Index: 51, Term: 4, Type: raft.LogNoop}},
	}, &appended); err != nil || !appended.Success {
		t.Fatal(err, appended)
	}
	var entry raft.Log
	if err := log.GetLog(51, &entry); err != nil || entry.Term != 4 {
		t.Errorf("entry 51 is of term %d, %v", entry.Term, err)
	}
}
