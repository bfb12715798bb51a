package replica

import (
	"cmp"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/fsm"
)

const (
	openAtOnce   = 64
	rebuildPause = 5 * time.Second
	// tidyEvery is how often it is looked for files of partitions that are gone if the catalog
	// stays as it is.
	tidyEvery = 30 * time.Second
)

// Retry has replicas opened again that could not be opened, but those that have to be rebuilt or
// that a newer program has to open.
func (s *Set) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, err := range s.broken {
		if !rebuildable(err) && !errors.Is(err, fsm.ErrNewer) {
			delete(s.broken, id)
		}
	}
}

// Reconcile opens the replicas that should be here and closes the others. With a
// catalog that may be old (current false) it only opens replicas that are on
// disk: it must neither form a group anew nor delete one because it has not yet
// read that far.
//
// It returns when they are open and closed, or after 2 s at most: what takes longer goes on. One
// goroutine may call it.
func (s *Set) Reconcile(topics *fsm.Topics, current bool) {
	desired := s.desired(topics)
	toOpen, toClose, toReopen := s.compare(desired, current)

	var work inhand
	for _, id := range toClose {
		r := s.Detach(id)
		_, there := topics.Partition(id)
		work.begin(s, id, func() {
			if err := r.Close(); err != nil {
				s.env.Logger.Warn("closing a replica of a deleted partition", "partition", id, "error", err)
			}
			s.removeReplica(id, there)
		})
	}
	for _, id := range toReopen {
		r, damage := s.Detach(id), s.takeDamage(id)
		work.begin(s, id, func() {
			s.closeToReopen(r, damage)
			s.env.Host.Wake() // it is opened in the next turn
		})
	}
	if current {
		if s.tidied.view != topics || time.Since(s.tidied.at) > tidyEvery {
			s.tidied.view, s.tidied.at = topics, time.Now()
			s.removeLeftovers(desired, topics)
		}
		s.rebuildBroken()
		s.rebuildHurt()
	}
	limit := make(chan struct{}, openAtOnce)
	var here map[string]bool
	if !current && len(toOpen) > 0 {
		here = s.folders()
	}
	for _, id := range toOpen {
		if !current && !here[id.String()] {
			continue
		}
		work.begin(s, id, func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			if s.env.ctx.Err() != nil {
				return
			}
			if err := s.openReplica(id, desired[id]); err != nil {
				s.setBroken(id, err)
				s.env.Logger.Error("cannot open a replica", "partition", id, "error", err)
			}
		})
	}
	work.wait()
}

// folders gives the names in the folder of replicas.
func (s *Set) folders() map[string]bool {
	entries, err := s.env.FS.List(s.env.Dir)
	if err != nil {
		return nil
	}
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name] = true
	}
	return names
}

// desired gives the partitions and shards that should have a replica here. It is asked every
// second, and the catalog seldom changes.
func (s *Set) desired(topics *fsm.Topics) map[fsm.PartitionID]*fsm.Partition {
	if s.wanted.view == topics {
		return s.wanted.all
	}
	desired := map[fsm.PartitionID]*fsm.Partition{}
	for _, topic := range topics.Placed() {
		for p := range topic.Partitions {
			partition := &topic.Partitions[p]
			if partition.Holds(s.env.NodeID) {
				desired[fsm.PartitionID{Topic: topic.ID, Partition: int32(p)}] = partition
			}
		}
	}
	s.wanted.view, s.wanted.all = topics, desired
	return desired
}

// compare says what is to be done with the replicas so that they are those that should be here, and
// forgets what was wrong with others.
func (s *Set) compare(desired map[fsm.PartitionID]*fsm.Partition, current bool) (toOpen, toClose, toReopen []fsm.PartitionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range desired {
		if s.open[id] == nil && s.broken[id] == nil && !s.busy[id] {
			toOpen = append(toOpen, id)
		}
	}
	for id := range s.open {
		switch {
		case desired[id] == nil && current:
			toClose = append(toClose, id)
		case s.reopening[id] || s.damage[id] != nil:
			toReopen = append(toReopen, id)
		}
	}
	clear(s.reopening)
	for id := range s.broken {
		if desired[id] == nil && current {
			delete(s.broken, id)
			delete(s.rebuilt, id)
		}
	}
	return toOpen, toClose, toReopen
}

// takeDamage gives why a replica is to be closed, and forgets it.
func (s *Set) takeDamage(id fsm.PartitionID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	damage := s.damage[id]
	delete(s.damage, id)
	return damage
}

// closeToReopen closes a replica that is to be opened again with what it has copied, or, if damage
// is not nil, to be rebuilt.
func (s *Set) closeToReopen(r *Replica, damage error) {
	if damage != nil {
		s.setBroken(r.ID, damage)
	}
	err := r.Close()
	if err == nil {
		return
	}
	s.env.Logger.Warn("closing a replica to open it again", "partition", r.ID, "error", err)
	if damage == nil && isDamage(err) {
		// What was copied goes behind segments that are damaged. Opened again, it would be copied
		// again, for ever.
		s.setBroken(r.ID, err)
	}
}

// inhand is the opening and closing of replicas in one call of Reconcile. One that takes
// longer than the loop has patience, as where Raft waits for a disk that hangs, goes on beside it,
// and its replica is left alone meanwhile.
type inhand struct {
	done sync.WaitGroup
	left atomic.Bool // the loop does not wait any more
}

// reconcilePatience is how long Reconcile waits for replicas that are being opened or
// closed.
const reconcilePatience = 2 * time.Second

func (w *inhand) begin(s *Set, id fsm.PartitionID, job func()) {
	s.setBusy(id, true)
	s.done.Add(1)
	w.done.Add(1)
	go func() {
		defer s.done.Done()
		defer w.done.Done()
		job()
		s.setBusy(id, false)
		if w.left.Load() {
			s.env.Host.Wake()
		}
	}()
}

// wait returns when all is done, or the patience is over.
func (w *inhand) wait() {
	done := make(chan struct{})
	go func() { w.done.Wait(); close(done) }()
	patience := time.NewTimer(reconcilePatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		w.left.Store(true)
	}
}

// openReplica starts this node's member of a partition's group.
func (s *Set) openReplica(id fsm.PartitionID, partition *fsm.Partition) error {
	anew, err := s.env.Stable.Group(id.String()).Anew()
	if err != nil {
		return err
	}
	voters := partition.Voters
	if anew || !slices.Contains(voters, s.env.Identity) {
		voters = nil // came later: the configuration comes from the group's leader
	}
	name := id.String()
	r := newReplica(s.env, s, id)
	if partition.Begin != nil && voters != nil {
		r.begin = &beginning{*partition.Begin, voters}
	}
	config := raftgroup.Config(s.env.Identity, s.env.HeartbeatTimeout, s.env.CommitTimeout, s.env.Trailing, s.env.RaftLogger.Named(name))
	// housekeeping takes them
	config.SnapshotThreshold, config.SnapshotInterval = math.MaxUint64, never
	transport := s.env.Host.Transport(name, anew)
	g, err := raftgroup.Open(raftgroup.Options{
		Name: name, Files: r.files, Config: config, Machine: observed{r.machine, r},
		Stable: s.env.Stable.Group(name), Transport: transport, Voters: voters,
		Ends: s.env.ctx,
	})
	if err != nil {
		return cmp.Or(r.metNewer(), err) // Raft does not say why it cannot restore a snapshot
	}
	r.start(g)
	s.env.Host.Serve(g, r.beforeInstall)
	s.mu.Lock()
	s.open[id], s.running = r, nil
	s.mu.Unlock()
	s.env.Host.Opened(id)
	if newer := r.metNewer(); newer != nil { // met before it was one of the replicas
		s.outgrown(r, newer)
	}
	return nil
}

// rebuildBroken begins to get damaged replicas out of their groups. Those that are
// out are opened again, with nothing.
func (s *Set) rebuildBroken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, err := range s.broken {
		if !rebuildable(err) || s.busy[id] || time.Since(s.rebuilt[id]) < rebuildPause {
			continue
		}
		err := DamageOf(err)
		s.busy[id] = true // nor is it opened if it goes from here and comes back meanwhile
		s.done.Add(1)
		go func() {
			defer s.done.Done()
			rerr := s.rebuild(id)
			s.didRebuild(id, err, rerr)
			if rerr != nil {
				s.env.Logger.Error("a damaged replica stays out of its group", "partition", id, "damage", err, "error", rerr)
				return
			}
			s.env.Host.Wake()
		}()
	}
}

// didRebuild notes that a damaged replica is out of its group, or why it is not.
func (s *Set) didRebuild(id fsm.PartitionID, damage, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
	s.rebuilt[id] = time.Now()
	if why != nil {
		s.broken[id] = errStaysOut{damage, why}
	} else {
		delete(s.broken, id)
	}
}

// removeReplica frees the disk of a partition that is no longer in the catalog or, if moved, has
// its replicas elsewhere. What was voted is kept then: the replica may come back, in the same term.
func (s *Set) removeReplica(id fsm.PartitionID, moved bool) {
	dir := s.env.dirOf(id)
	// Renamed first: what is half deleted must never be opened again.
	gone := dir + ".deleted"
	if err := s.env.FS.Rename(dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.env.Logger.Error("cannot delete a partition's files", "partition", id, "error", err)
		return
	}
	if err := s.env.FS.RemoveAll(gone); err != nil {
		s.env.Logger.Error("cannot delete a partition's files", "partition", id, "error", err)
	}
	var err error
	if moved {
		err = s.env.Stable.Group(id.String()).BeginAnew(0, "")
	} else {
		err = s.env.Stable.Delete(id.String())
	}
	if err != nil {
		s.env.Logger.Error("cannot delete a partition's votes", "partition", id, "error", err)
	}
	s.env.Logger.Info("replica deleted", "partition", id, "moved", moved)
}

// removeLeftovers deletes the files of partitions that were deleted while this
// node was away. Folders with other names are not touched.
func (s *Set) removeLeftovers(desired map[fsm.PartitionID]*fsm.Partition, topics *fsm.Topics) {
	entries, err := s.env.FS.List(s.env.Dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		name, deleted := strings.CutSuffix(entry.Name, ".deleted")
		id, err := fsm.ParsePartitionID(name)
		if err != nil {
			continue
		}
		if s.IsBusy(id) {
			continue
		}
		switch {
		case deleted:
			s.env.FS.RemoveAll(filepath.Join(s.env.Dir, entry.Name))
		case desired[id] == nil:
			_, there := topics.Partition(id)
			s.removeReplica(id, there)
		}
	}
}
