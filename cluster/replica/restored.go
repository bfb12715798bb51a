package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// A partition that is restored from a backup begins where the old one began. Each of the nodes that
// form its group has the same snapshot before Raft runs, as if it had copied a log of which
// retention has freed everything: of index 1, in the old group's term, with the voters as
// configuration and the first offset as the next one. So nobody has to be told where offsets begin,
// terms go on above the leader epochs of the old log, and what reads logs knows such a one already.
//
// What stood in the old log comes to the leader by RestoreBatches, and into entries that are marked
// (fsm.RestoredExtensions).

// beginning is what a group is formed with whose log does not begin at offset 0.
type beginning struct {
	fsm.Begin
	voters []string
}

// termOfStable is the key of Raft's term (raftlog.MemberStable).
var termOfStable = []byte("CurrentTerm")

// beginAt gives a log that has nothing the snapshot that it is to begin with, and opens it again.
// After a crash it is done again, or has been done.
func (r *Replica) beginAt(log *raftlog.PartitionLog, opts raftlog.LogOptions) (*raftlog.PartitionLog, error) {
	last, err := log.LastIndex()
	if err != nil || last > 0 || log.SnapshotIndex() > 0 {
		return log, err
	}
	// A log without a term would be one whose votes are lost.
	stable := r.env.Stable.Group(r.ID.String())
	if known, err := stable.Known(); err != nil || !known {
		if err = errors.Join(err, stable.SetUint64(termOfStable, uint64(r.begin.Term))); err != nil {
			return log, err
		}
	}
	state := fsm.NewPartitionAt(r.begin.Offset)
	index := uint64(state.LastApplied())
	d := raftlog.Described{
		First: index + 1, FirstStart: int64(r.begin.Offset), Next: int64(r.begin.Offset),
		Index: index, Term: uint64(r.begin.Term), ConfigurationIndex: index, State: state.Snapshot(),
	}
	for _, id := range r.begin.voters {
		d.Configuration.Servers = append(d.Configuration.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: raft.Voter})
	}
	staging, err := log.Stage(d)
	if err != nil {
		return log, err
	}
	if err := staging.Finish(d); err != nil {
		return log, errors.Join(err, staging.Discard())
	}
	if err := errors.Join(log.Adopt(staging), log.Close()); err != nil {
		return nil, err
	}
	opts.Fresh = false
	return r.env.Logs.OpenLog(r.env.dirOf(r.ID), opts)
}

// MaxRestore bounds the batches of one call of RestoreBatches, in bytes; one alone may be larger.
const MaxRestore = 8 << 20

// RestoreBatches appends batches that keep their offsets, leader epochs and producers, and returns
// the next offset when they are committed and applied here. What is there already is left out, so
// it may be done twice. end: all is there; what is open of transactions is aborted. Errors are why
// this replica is not the leader, outcome.ErrNoLeader while the node does not know that the topic
// is restored, ErrInvalidConfig where it is not any more, and ErrCorruptMessage.
func (r *Records) RestoreBatches(ctx context.Context, batches []kafkaproto.Batch, end bool) (next fsm.Offset, err error) {
	p, _, _, err := r.asConfirmedLeader(ctx)
	if err != nil {
		return -1, err
	}
	topics := r.env.Host.Topics()
	topic, ok := topics.ByID(r.ID.Topic)
	switch {
	case !ok || topics.FeatureLevel() < fsm.LevelRestore:
		return -1, fmt.Errorf("%w: the topic is not known here yet", outcome.ErrNoLeader)
	case !topic.Restoring:
		return -1, fmt.Errorf("%w: topic %s is not being restored", outcome.ErrInvalidConfig, topic.Name)
	}
	size := 0
	for _, batch := range batches {
		size += batch.Size()
	}
	if size > MaxRestore && len(batches) > 1 {
		return -1, fmt.Errorf("%w: %d bytes to restore at once, want at most %d", outcome.ErrCorruptMessage, size, MaxRestore)
	}
	if err := r.env.Host.Room(r.Member); err != nil {
		return -1, err
	}
	if err := p.restore(ctx, batches); err != nil {
		return -1, err
	}
	if end {
		if err := p.restore(ctx, r.abortMarkers(p.term)); err != nil {
			return -1, err
		}
	}
	_, next = r.Bounds()
	return next, nil
}

// restore puts restored batches into the log: those of one leader epoch that follow each other into
// one entry.
func (p *proposer) restore(ctx context.Context, batches []kafkaproto.Batch) error {
	for len(batches) > 0 {
		n := 1
		for n < len(batches) && batches[n].Header().LeaderEpoch == batches[0].Header().LeaderEpoch {
			n++
		}
		if _, err := p.submitAndWait(ctx, &submission{ctx: ctx, batches: batches[:n], restored: true, bytes: maxEntryBytes, fate: make(chan fate, 1)}); err != nil {
			return err
		}
		batches = batches[n:]
	}
	return nil
}

// formRestored puts together those restored batches that are not there yet, and says what their
// entry is marked with.
func (p *proposer) formRestored(s *submission) (data, extensions []byte) {
	missing := s.batches
	for len(missing) > 0 && fsm.Offset(missing[0].Header().NextOffset()) <= p.next {
		missing = missing[1:]
	}
	after, err := fsm.CheckRestored(missing, p.next, p.term)
	if err != nil {
		s.unfit = outcome.With(outcome.ErrCorruptMessage, err)
		return nil, nil
	}
	if len(missing) == 0 {
		return nil, nil
	}
	for _, batch := range missing {
		data = append(data, batch.Bytes()...)
	}
	p.next = after
	return data, fsm.RestoredExtensions(missing[0].Header())
}

// abortMarkers ends what is open of transactions, one behind the other at the log's end.
func (r *Records) abortMarkers(term fsm.Term) (markers []kafkaproto.Batch) {
	r.mu.Lock()
	open, next := r.state.Open(), r.state.NextOffset()
	epochs := make([]int16, len(open))
	for i, o := range open {
		producer, _ := r.state.Producer(o.ProducerID)
		epochs[i] = producer.Epoch
	}
	r.mu.Unlock()
	for i, o := range open {
		marker := kafkaproto.NewMarker(kafkaproto.Marker{}, o.ProducerID, epochs[i], time.Now().UnixMilli())
		marker.Stamp(int64(next)+int64(i), int32(term.Epoch()))
		markers = append(markers, marker)
	}
	return markers
}
