package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/catalog"
	"github.com/trimaran-io/trimaran/cluster/identity"
	"github.com/trimaran-io/trimaran/cluster/lostquorum"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/replica"
	"github.com/trimaran-io/trimaran/fsm"
)

// Recovery is the data directory of a stopped node whose cluster has lost a majority of some group
// for good. The node cannot start while it is open.
//
// A recovery changes it in steps that a crash may come between. First what it is going to change is
// copied, then what it is going to do is noted (the file "recovery"); from then on no node starts
// here. Then come the groups, each in one append, of which a crash may leave the first entries, and
// then node.json, with which the node is one of the recovered cluster. That the note goes is the
// end.
type Recovery struct {
	fs     vfs.FS
	dir    *identity.Dir
	file   *identity.File
	logger *slog.Logger
}

// OpenRecovery opens a node's data directory and changes nothing. It fails when a node runs on it.
func OpenRecovery(path string, logger *slog.Logger) (*Recovery, error) {
	return openRecovery(vfs.OS, path, logger)
}

func openRecovery(fsys vfs.FS, path string, logger *slog.Logger) (_ *Recovery, err error) {
	if used, err := identity.Used(fsys, path); err != nil {
		return nil, err
	} else if !used {
		return nil, fmt.Errorf("%s is no node's data directory: it has no file node.json", path)
	}
	r := &Recovery{fs: fsys, logger: logger}
	if r.dir, err = identity.Open(fsys, path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.dir.Close()
		}
	}()
	if r.file, err = r.dir.Look(); err != nil {
		return nil, err
	}
	switch {
	case r.file.Old():
		return nil, errOldFiles
	case r.file.Left:
		return nil, ErrLeft
	case r.file.ClusterID == "":
		return nil, fmt.Errorf("the node of %s was never in a cluster", path)
	}
	return r, nil
}

// Close lets the node start again.
func (r *Recovery) Close() error { return r.dir.Close() }

// Identity is the node's name in every group.
func (r *Recovery) Identity() string { return r.file.Identity() }

// ClusterID is the cluster that the node is in now.
func (r *Recovery) ClusterID() string { return r.file.ClusterID }

// Without reports whether the cluster was recovered already without the nodes of these names or
// identities, as far as this node goes.
func (r *Recovery) Without(lost []string) bool {
	return len(lost) > 0 && !slices.ContainsFunc(lost, func(name string) bool {
		return !slices.ContainsFunc(r.file.Lost, func(identity string) bool {
			id, _, _ := strings.Cut(identity, ".")
			return name == identity || name == id
		})
	})
}

// Survey gives what the node has. It reads every log from its snapshot on, as a start does.
func (r *Recovery) Survey() (*lostquorum.Survey, error) {
	a, err := raftlog.OpenArchiveOn(r.fs, r.dir.Path())
	if err != nil {
		return nil, err
	}
	s := &lostquorum.Survey{
		Format: lostquorum.Format, Identity: r.Identity(), ClusterID: r.file.ClusterID, Lost: r.file.Lost,
		Logs: map[string]lostquorum.Log{},
	}
	all, err := a.Votes()
	if err != nil {
		return nil, err
	}
	votes := map[string]raftlog.ArchivedVotes{}
	for _, v := range all {
		votes[v.Group] = v
	}
	var entries []raft.Log
	end, err := a.End(catalog.Group, catalogSpan, func(entry *raft.Log) error {
		if entry.Type == raft.LogCommand {
			entries = append(entries, raft.Log{Index: entry.Index, Data: slices.Clone(entry.Data)})
		}
		return nil
	})
	s.Catalog = surveyed(end, err, votes, catalog.Group)
	if s.Catalog.Problem == "" {
		if err := known(s, end.State, entries); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
	}
	names, _, err := a.Groups()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		id, err := fsm.ParsePartitionID(name)
		if err != nil || name != id.String() {
			continue // nobody's, or half deleted
		}
		end, err := a.End(name, replica.SpanOf(id), nil)
		s.Logs[name] = surveyed(end, err, votes, name)
	}
	return s, nil
}

// surveyed gives what a survey says of a log.
func surveyed(end raftlog.LogEnd, err error, votes map[string]raftlog.ArchivedVotes, group string) lostquorum.Log {
	voted, known := votes[group]
	switch {
	case err != nil:
		return lostquorum.Log{Problem: err.Error()}
	case voted.Damaged != "":
		return lostquorum.Log{Problem: "its votes are damaged: " + voted.Damaged}
	case !known && end.Index > 0:
		return lostquorum.Log{Problem: "what it has voted is gone"}
	}
	log := lostquorum.Log{Index: end.Index, Term: end.Term, Next: end.Next, Committed: end.Snapshot, Voted: max(voted.Term, voted.VoteTerm)}
	if !end.At.IsZero() {
		log.At = end.At.UnixMilli()
	}
	for _, server := range end.Configuration.Servers {
		log.Servers = append(log.Servers, lostquorum.Server{Identity: string(server.ID), Votes: server.Suffrage == raft.Voter})
	}
	return log
}

// known adds to a survey what the node's catalog says, with all that is in its log.
func known(s *lostquorum.Survey, snapshot []byte, entries []raft.Log) (err error) {
	state := fsm.NewCatalog()
	if snapshot != nil {
		if state, err = fsm.RestoreCatalog(snapshot); err != nil {
			return err
		}
	}
	for _, entry := range entries {
		if result := state.Apply(fsm.Index(entry.Index), entry.Data); errors.Is(result.Err, fsm.ErrNewer) {
			return result.Err
		}
	}
	view := state.View()
	s.Nodes = view.Nodes()
	for _, topic := range view.Placed() {
		t := lostquorum.Topic{Name: topic.Name, ID: topic.ID}
		for i := range topic.Partitions {
			t.Holders = append(t.Holders, slices.Clone(topic.Partitions[i].Holders()))
		}
		s.Topics = append(s.Topics, t)
	}
	return nil
}

// Begun gives the plan of a recovery that was begun here and has not come to its end; nil: none.
func (r *Recovery) Begun() (*lostquorum.Plan, error) {
	data, err := r.dir.Recovery()
	if err != nil || data == nil {
		return nil, err
	}
	begun := new(begunRecovery)
	if err := json.Unmarshal(data, begun); err != nil || begun.Plan == nil || begun.Plan.Format != lostquorum.Format {
		return nil, fmt.Errorf("what a recovery has noted cannot be read: %w", errors.Join(err, identity.ErrUnfinished))
	}
	begun.Plan.Decided = begun.Decided
	return begun.Plan, nil
}

// begunRecovery is what is noted of a recovery that is under way.
type begunRecovery struct {
	Plan    *lostquorum.Plan `json:"plan"`
	Decided json.RawMessage  `json:"decided"`
}

// RecoveredID is the id of the cluster that a plan leads to.
func RecoveredID(p *lostquorum.Plan) string { return identity.Recovered(p.ClusterID, p.Decided) }

// Copies is the folder that a plan's copies are in.
func (r *Recovery) Copies(p *lostquorum.Plan) string {
	_, digits, _ := cutLast(RecoveredID(p), ".")
	return r.dir.Join("before-recovery-" + digits)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Apply carries out this node's part of a plan. It can be done again after any failure, and after
// its end, with the same plan.
func (r *Recovery) Apply(p *lostquorum.Plan) error {
	next := RecoveredID(p)
	if r.file.ClusterID == next {
		return r.dir.EndRecovery()
	}
	if r.file.ClusterID != p.ClusterID {
		return fmt.Errorf("the node is in cluster %s, and the plan is that of %s", r.file.ClusterID, p.ClusterID)
	}
	own, err := r.appends(p)
	if err != nil {
		return err
	}
	if err := r.copyFiles(p); err != nil {
		return fmt.Errorf("copies of what is to be changed: %w", err)
	}
	note, err := json.Marshal(begunRecovery{p, p.Decided})
	if err == nil {
		err = r.dir.BeginRecovery(note)
	}
	if err != nil {
		return err
	}
	if err := r.recoverGroups(own); err != nil {
		return err
	}
	file := *r.file
	file.ClusterID, file.Lost = next, p.Lost
	if err := r.dir.Save(&file); err != nil {
		return err
	}
	r.file = &file
	r.logger.Info("this node is in the recovered cluster", "cluster", next, "lost", strings.Join(p.Lost, ","))
	return r.dir.EndRecovery()
}

// appended is a group that goes on with this node's log, and what is appended to that.
type appended struct {
	lostquorum.Group
	entries []*raft.Log
}

// appends gives the groups that go on with this node's logs, and changes nothing.
func (r *Recovery) appends(p *lostquorum.Plan) (own []appended, err error) {
	a, err := raftlog.OpenArchiveOn(r.fs, r.dir.Path())
	if err != nil {
		return nil, err
	}
	for _, g := range p.Groups {
		if g.Fate != lostquorum.Recovered || g.Member != r.Identity() {
			continue
		}
		entries, err := entriesOf(a, g)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", g, err)
		}
		own = append(own, appended{g, entries})
	}
	return own, nil
}

// recoverGroups makes this node's logs those of the groups that go on with them.
func (r *Recovery) recoverGroups(own []appended) (err error) {
	store, err := raftlog.OpenStore(r.dir.Path(), raftlog.Options{FS: r.fs, Logger: r.logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	stable, err := store.OpenStable()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stable.Close()) }()
	for _, g := range own {
		if err := r.recoverGroup(store, stable, g.Group, g.entries); err != nil {
			return fmt.Errorf("group %s: %w", g.Group, err)
		}
	}
	return nil
}

// spareProducerIDs is how many times fsm.MaxProducerIDBlock producer ids are put aside, since those
// may have been handed out: a hundred million in all.
const spareProducerIDs = 100

// renewalBytes bounds a command by which transactional ids are renewed.
const renewalBytes = 1 << 20

// entriesOf gives what is appended to the log of a group that goes on: the configuration of the
// survivors and, since what was lost may have been heard of elsewhere, commands by which nothing is
// given a second time that may have been given to somebody. The same log gives the same.
func entriesOf(a *raftlog.Archive, g lostquorum.Group) (entries []*raft.Log, err error) {
	add := func(kind raft.LogType, data []byte) {
		entries = append(entries, &raft.Log{Index: g.Index + 1 + uint64(len(entries)), Term: g.NewTerm, Type: kind, Data: data, AppendedAt: time.Now()})
	}
	add(raft.LogConfiguration, raft.EncodeConfiguration(configurationOf(g)))
	switch g.Topic {
	case "":
		block := fsm.CatalogCommand{AllocateProducerIDs: &fsm.AllocateProducerIDs{Count: fsm.MaxProducerIDBlock}}.Encode()
		for range spareProducerIDs {
			add(raft.LogCommand, block)
		}
	case fsm.GroupShardsName:
		renewed, err := renewed(a, g)
		if err != nil {
			return nil, err
		}
		for _, data := range renewed {
			add(raft.LogCommand, data)
		}
	}
	return entries, nil
}

// renewed gives the entries by which the transactional ids of a shard are renewed.
func renewed(a *raftlog.Archive, g lostquorum.Group) ([][]byte, error) {
	var behind [][]byte
	end, err := a.End(g.Name, replica.SpanOf(fsm.PartitionID{Topic: fsm.GroupShardsID}), func(entry *raft.Log) error {
		if entry.Type == raft.LogCommand && entry.Index <= g.Index {
			behind = append(behind, slices.Clone(entry.Data))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return replica.RenewShard(end.State, behind, renewalBytes)
}

// recoverGroup appends entries to the log of a group, or what is not there of them.
func (r *Recovery) recoverGroup(store *raftlog.Store, stable *raftlog.Stable, g lostquorum.Group, entries []*raft.Log) (err error) {
	log, err := r.openLog(store, g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	if last == 0 { // all that there was is in the snapshot
		last = g.Index
	}
	if last < g.Index || last-g.Index > uint64(len(entries)) {
		return fmt.Errorf("its log ends at entry %d, and did at %d when the plan was made", last, g.Index)
	}
	done := int(last - g.Index)
	for _, entry := range entries[:done] {
		there := new(raft.Log)
		if err := log.GetLog(entry.Index, there); err != nil {
			return err
		}
		if there.Term != entry.Term || there.Type != entry.Type || !bytes.Equal(there.Data, entry.Data) {
			return fmt.Errorf("its log has another entry %d than a recovery would append, and ended at %d when the plan was made", entry.Index, g.Index)
		}
	}
	if done == len(entries) {
		return nil
	}
	// The term first: no log may be further than the term that its member is in.
	if err := stable.Group(g.Name).Elect(g.NewTerm, r.Identity()); err != nil {
		return err
	}
	if err := log.StoreLogs(entries[done:]); err != nil {
		return err
	}
	r.logger.Info("a group goes on with the survivors", "group", g.String(), "raft", g.Name, "entry", g.Index+1, "term", g.NewTerm, "members", memberNames(g))
	return nil
}

func (r *Recovery) openLog(store *raftlog.Store, g lostquorum.Group) (raftlog.Log, error) {
	if g.Name == catalog.Group {
		return store.OpenWholeLog(r.dir.Join(catalog.Group), catalogLogOptions(catalogTrailing))
	}
	id, err := fsm.ParsePartitionID(g.Name)
	if err != nil {
		return nil, err
	}
	return store.OpenLog(filepath.Join(store.Groups(), g.Name), replica.LogOptions(id))
}

func configurationOf(g lostquorum.Group) (c raft.Configuration) {
	for _, s := range g.Servers {
		suffrage := raft.Nonvoter
		if s.Votes {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s.Identity), Address: raft.ServerAddress(s.Identity), Suffrage: suffrage})
	}
	return c
}

func memberNames(g lostquorum.Group) string {
	names := make([]string, len(g.Servers))
	for i, s := range g.Servers {
		names[i] = s.Identity
	}
	return strings.Join(names, ",")
}

// answerTimeout bounds the question whether somebody listens at an address.
const answerTimeout = time.Second

// Answering gives those of the addresses at which other nodes of the cluster gossiped, as far as
// this one remembers them, where somebody listens now.
func (r *Recovery) Answering(ctx context.Context) (addrs []string) {
	known, err := membership.Remembered(vfs.Small{FS: r.fs, Path: r.dir.Join(hintsName)})
	if err != nil {
		r.logger.Warn("where other nodes were is not known", "error", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answers := make([]bool, len(known))
	var asked sync.WaitGroup
	for i, addr := range known {
		asked.Go(func() {
			var d net.Dialer
			if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
				answers[i] = true
				c.Close()
			}
		})
	}
	asked.Wait()
	for i, addr := range known {
		if answers[i] {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// copyFiles puts copies of all files that may be changed into a folder in the data directory, once:
// what is there was copied before anything was changed.
func (r *Recovery) copyFiles(p *lostquorum.Plan) error {
	to := r.Copies(p)
	if there, err := vfs.Exists(r.fs, to); err != nil || there {
		return err
	}
	names, size, err := r.changes(p)
	if err != nil {
		return err
	}
	if free, _, err := r.fs.Space(r.dir.Path()); err == nil && size > free-spareBytes {
		return fmt.Errorf("they take %d bytes, and %d are free: make room on the disk first", size, free)
	}
	fresh := to + ".new"
	if err := r.fs.RemoveAll(fresh); err != nil {
		return err
	}
	folders := map[string]bool{}
	for _, name := range names {
		target := filepath.Join(fresh, name)
		if folder := filepath.Dir(target); !folders[folder] {
			if err := r.fs.MkdirAll(folder); err != nil {
				return err
			}
			for ; strings.HasPrefix(folder, fresh); folder = filepath.Dir(folder) {
				folders[folder] = true
			}
		}
		if err := copyFile(r.fs, r.dir.Join(name), r.fs, target); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for folder := range folders {
		if err := r.fs.SyncDir(folder); err != nil {
			return err
		}
	}
	if err := r.fs.Rename(fresh, to); err != nil {
		return err
	}
	r.logger.Info("what is to be changed was copied", "to", to, "files", len(names), "bytes", size)
	return r.fs.SyncDir(r.dir.Path())
}

// spareBytes is what a recovery needs on the disk beside its copies.
const spareBytes = 16 << 20

// changes gives the files that a plan may change here, by their names in the data directory, and
// their bytes. Segments that are complete and below their log's snapshot are not among them:
// nothing is ever written to them.
func (r *Recovery) changes(p *lostquorum.Plan) (names []string, size int64, err error) {
	add := func(folder string, skip func(name string) bool) error {
		entries, err := r.fs.List(r.dir.Join(folder))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, e := range entries {
			if !e.Dir && !skip(e.Name) {
				names, size = append(names, filepath.Join(folder, e.Name)), size+e.Size
			}
		}
		return err
	}
	own := []string{"node.json", "votes", "closed"}
	err = add("", func(name string) bool { return !slices.Contains(own, name) })
	for _, folder := range []string{"journal", catalog.Group} {
		if err == nil {
			err = add(folder, func(string) bool { return false })
		}
	}
	if err != nil {
		return nil, 0, err
	}
	a, err := raftlog.OpenArchiveOn(r.fs, r.dir.Path())
	if err != nil {
		return nil, 0, err
	}
	for _, g := range p.Groups {
		if g.Fate != lostquorum.Recovered || g.Member != r.Identity() || g.Name == catalog.Group {
			continue
		}
		l, err := a.Describe(g.Name)
		if err != nil {
			return nil, 0, fmt.Errorf("group %s: %w", g, err)
		}
		finished := map[string]bool{}
		for i, s := range l.Segments {
			finished[s.File] = s.Last != 0 && l.Snapshot != nil && s.Last <= l.Snapshot.Index && i+1 < len(l.Segments)
		}
		if err := add(filepath.Join("partitions", g.Name), func(name string) bool { return finished[name] }); err != nil {
			return nil, 0, err
		}
	}
	return names, size, nil
}

// copyFile copies a file and brings it to stable storage.
func copyFile(fromFS vfs.FS, from string, toFS vfs.FS, to string) (err error) {
	source, err := fromFS.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	size, err := source.Size()
	if err != nil {
		return err
	}
	target, err := toFS.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	buf := make([]byte, min(size, 1<<20))
	for at := int64(0); at < size; {
		n, err := source.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := target.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return target.Sync()
}
