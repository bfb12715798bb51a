package raftlog

import (
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/ticks"
)

const (
	reserveName   = "reserve"
	spaceInterval = 500 * time.Millisecond
	// spaceMargin is what must be free, beside the reserve, for records to be
	// taken, or a twentieth of a smaller disk.
	spaceMargin = 64 << 20
)

// space watches how full the disk is. When little is left, producers are refused
// before the disk says so, and a file that was kept in reserve makes room for
// what Raft itself has to write. All ends by itself when there is room again.
type space struct {
	disk *disk
	dir  string // on the disk, where the reserve is
	most int64  // bytes of the reserve; 0 or less: none

	full atomic.Bool
	// short: what is free is all for Raft's own small writes; records that another
	// node sends are refused, too.
	short atomic.Bool
	free  atomic.Int64
	size  atomic.Int64

	// mu guards reserve, and is held while the disk is asked and the reserve made or given up: one
	// looks at a time. The log's appends wait for it when a file grows; what reads uses the numbers
	// above alone.
	mu      locks.Slow[space]
	reserve vfs.File // nil: given up, or none
	quit    chan struct{}
	wg      sync.WaitGroup
}

// newSpace begins to watch the disk that the folder dir is on; most bounds the reserve, in bytes.
func newSpace(d *disk, dir string, most int64) *space {
	s := &space{disk: d, dir: dir, most: most, quit: make(chan struct{})}
	s.look()
	s.wg.Go(func() {
		tick := ticks.New(spaceInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.look()
			case <-s.quit:
				return
			}
		}
	})
	return s
}

func (s *space) close() {
	close(s.quit)
	s.wg.Wait()
	if s.reserve != nil {
		s.reserve.Close()
	}
}

// look compares what is free with what must be.
func (s *space) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, total, err := s.disk.fs.Space(s.dir)
	if err != nil {
		return // a disk that cannot be asked will say so when it is written
	}
	s.size.Store(total)
	path := filepath.Join(s.dir, reserveName)
	margin := min(spaceMargin, total/20)
	want := min(s.most, total/20)
	if s.reserve == nil && want > 0 && free > want+2*margin {
		if f, err := s.disk.create(path); err == nil {
			if err := f.Allocate(want); err != nil {
				f.Close()
				s.disk.fs.Remove(path)
			} else {
				s.reserve = f
				free -= want
			}
		}
	}
	// With little left, the reserve is given up, so that votes, the catalog and
	// deletions can still be written.
	if s.reserve != nil && free < margin/8 {
		s.reserve.Truncate(0)
		s.reserve.Close()
		s.reserve = nil
		s.disk.fs.Remove(path)
		if again, _, err := s.disk.fs.Space(s.dir); err == nil {
			free = again
		}
	}
	s.free.Store(free)
	// What the reserve gave back is not for records.
	floor := margin / 4
	if s.reserve == nil && want > 0 {
		floor += want
	}
	s.short.Store(free < floor)
	// Twice the margin before records are taken again: else it would flutter.
	if s.full.Load() {
		margin *= 2
	}
	if full := free < margin; full != s.full.Load() {
		s.full.Store(full)
		if full {
			s.disk.logger.Error("the disk is full: records are refused until there is room", "free", free, "needed", margin)
		} else {
			s.disk.logger.Info("there is room on the disk again: records are taken", "free", free)
		}
	}
}

// noteFull is told that a write did not fit.
func (s *space) noteFull() {
	if !s.full.Swap(true) {
		s.disk.logger.Error("the disk is full: records are refused until there is room")
	}
}

// grown is told that a file takes more of the disk now: on a fast one there is
// much to be written between two looks.
func (s *space) grown() {
	if s != nil { // while the store is opened there is none
		s.look()
	}
}

// ahead gives how much of a step a file may be grown in advance.
func (s *space) ahead(step int64) int64 {
	if s == nil {
		return 0
	}
	return min(step, max(s.free.Load()-2*min(spaceMargin, s.size.Load()/20), 0)/4)
}
