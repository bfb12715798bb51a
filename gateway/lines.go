package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// maxCoalesced bounds the bytes of produces that are sent on together with the
// first of them, in one Append.
const maxCoalesced = 1 << 20

// lines keeps the produces of one connection in line, one line per partition. At
// most one Append per line is under way; what waits behind it goes together in
// the next one. So nothing overtakes an entry whose fate is not known yet, and
// the slower the cluster, the larger the entries.
type lines struct {
	server *Server

	mu sync.Mutex
	// waiting has a key exactly while a goroutine works on that line.
	waiting map[fsm.PartitionID][]*parcel
}

// parcel is what one request has for one partition.
type parcel struct {
	partition fsm.PartitionID
	topic     string
	until     time.Time // when Append may give up

	// Set before ready is closed.
	ready   chan struct{}
	batches [][]byte
	bytes   int
	records int
	stamped int64 // LogAppendTime of its records, ms since epoch; -1: they have their own
	err     error // not fit to be appended

	// Set before done is closed. err may be set, too.
	done     chan struct{}
	base     fsm.Offset // of the first record; -1 if there is none
	logStart fsm.Offset // when it was appended; -1 if there is none
}

func (l *lines) init(s *Server) {
	l.server, l.waiting = s, map[fsm.PartitionID][]*parcel{}
}

// add puts a parcel at the end of its line. Its batches may come later: whoever
// adds it must close ready in any case.
func (l *lines) add(p *parcel) {
	l.mu.Lock()
	line, running := l.waiting[p.partition]
	l.waiting[p.partition] = append(line, p)
	l.mu.Unlock()
	if !running {
		l.server.wg.Go(func() { l.run(p.partition) })
	}
}

func (l *lines) run(id fsm.PartitionID) {
	for {
		group := l.next(id)
		if group == nil {
			return
		}
		l.deliver(id, group)
		for _, p := range group {
			close(p.done)
		}
	}
}

// next waits for the first parcel and takes those behind it that are ready.
func (l *lines) next(id fsm.PartitionID) []*parcel {
	l.mu.Lock()
	line := l.waiting[id]
	if len(line) == 0 {
		delete(l.waiting, id)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	<-line[0].ready
	l.mu.Lock()
	defer l.mu.Unlock()
	line = l.waiting[id]
	n, more := 1, 0
	for _, p := range line[1:] {
		if !p.isReady() || more+p.bytes > maxCoalesced {
			break
		}
		n++
		more += p.bytes
	}
	group := slices.Clone(line[:n])
	l.waiting[id] = slices.Delete(line, 0, n) // which lets go of the batches, too
	return group
}

func (p *parcel) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

// deliver appends what the parcels hold and tells each what became of it.
func (l *lines) deliver(id fsm.PartitionID, group []*parcel) {
	var batches [][]byte
	var until time.Time
	for _, p := range group {
		p.base, p.logStart = -1, -1
		if p.err != nil {
			continue
		}
		batches = append(batches, p.batches...)
		if p.until.After(until) {
			until = p.until
		}
	}
	if len(batches) == 0 {
		return
	}
	appended, err := l.append(id, batches, until)
	if err == nil && len(appended) != len(batches) {
		err = fmt.Errorf("%w: %d results for %d batches", fsm.ErrUnknownFate, len(appended), len(batches))
	}
	for _, p := range group {
		switch {
		case p.err != nil || len(p.batches) == 0:
			continue
		case err != nil:
			p.err = err
			continue
		}
		p.base, p.logStart = appended[0].BaseOffset, appended[0].LogStart
		for _, a := range appended[:len(p.batches)] {
			if a.BaseOffset < 0 {
				p.base, p.logStart, p.err = -1, -1, fsm.ErrVoid
			}
		}
		appended = appended[len(p.batches):]
	}
}

// append is Cluster.Append, and a panic in it an error of unknown fate.
func (l *lines) append(id fsm.PartitionID, batches [][]byte, until time.Time) (_ []fsm.Appended, err error) {
	defer func() {
		if v := recover(); v != nil {
			l.server.log.Error("an append panicked", "panic", v, "partition", id, "stack", string(debug.Stack()))
			err = fsm.ErrUnknownFate
		}
	}()
	ctx, cancel := context.WithDeadline(l.server.ctx, until)
	defer cancel()
	return l.server.cluster.Append(ctx, id, batches)
}
