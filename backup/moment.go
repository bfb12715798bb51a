package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// A transaction is in a backup entirely or not at all, though its partitions are led by different
// nodes: how far all of them are, and the groups, is looked at in a moment in which none commits
// and all that have committed have their markers. Records are read after that, up to there.

// End is how far a partition is.
type End struct {
	Offset int64 // the next one
	Epoch  int32 // the leader epoch; -1: it is not known
}

// ErrNeverHeld says that a cluster cannot hold commits, now or in a while.
var ErrNeverHeld = errors.New("commits of transactions cannot be held")

const (
	// momentTries is how often it is tried to look while commits are held, momentPause the pause
	// in between.
	momentTries = 4
	momentPause = 2 * time.Second
	// holdTimeout bounds how long it takes until commits are held, and lookTimeout what is done
	// meanwhile: longer than they are held at all.
	holdTimeout = 5 * time.Second
	lookTimeout = 3 * time.Second
)

// moment is what a cluster has at a time.
type moment struct {
	catalog *admin.CatalogCopy
	groups  []Group
	ends    map[fsm.TopicID][]End // of topics that are backed up; not of those that are gone
}

// moment gives what there is. torn says why it is not one moment, for transactions; "": it is, or
// no records are read, of which nothing is said. never: the cluster does not know how to hold.
func (c *creation) moment(ctx context.Context) (m *moment, torn string, never bool, err error) {
	if c.options.CatalogOnly {
		m, err = c.look(ctx)
		return m, "", false, err
	}
	for try := 0; ; try++ {
		m, err = c.held(ctx)
		if err == nil || ctx.Err() != nil {
			return m, "", false, err
		}
		torn, never = err.Error(), errors.Is(err, ErrNeverHeld)
		if never || try+1 == momentTries {
			break
		}
		select {
		case <-time.After(momentPause):
		case <-ctx.Done():
			return nil, "", false, ctx.Err()
		}
	}
	m, err = c.look(ctx)
	return m, torn[:min(len(torn), maxTorn)], never, err
}

// held looks while commits are held.
func (c *creation) held(ctx context.Context) (*moment, error) {
	within, cancel := context.WithTimeout(ctx, holdTimeout)
	release, err := c.from.Hold(within)
	cancel()
	if err != nil {
		return nil, err
	}
	within, cancel = context.WithTimeout(ctx, lookTimeout)
	m, err := c.look(within)
	cancel()
	// Let go in any case, and soon.
	within, cancel = context.WithTimeout(context.WithoutCancel(ctx), holdTimeout)
	defer cancel()
	held, lost := release(within)
	switch {
	case err != nil:
		return nil, fmt.Errorf("while commits were held: %w", err)
	case lost != nil:
		return nil, fmt.Errorf("whether commits were held: %w", lost)
	case !held:
		return nil, errors.New("commits were not held for long enough, or another coordinator came meanwhile")
	}
	return m, nil
}

// look looks how far everything is.
func (c *creation) look(ctx context.Context) (*moment, error) {
	m := &moment{ends: map[fsm.TopicID][]End{}}
	var err error
	if m.catalog, err = c.from.Catalog(ctx); err != nil {
		return nil, fmt.Errorf("the cluster's catalog: %w", err)
	}
	// Offsets of groups come first: whatever they point at is there when the ends are asked for.
	if m.groups, err = c.from.Groups(ctx); err != nil {
		return nil, fmt.Errorf("offsets of groups: %w", err)
	}
	var topics []admin.TopicCopy
	for _, t := range m.catalog.Topics {
		if c.options.selects(t.Name) && !t.Restoring {
			topics = append(topics, t)
		}
	}
	ends, err := c.from.Ends(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("ends of partitions: %w", err)
	}
	for i, t := range topics {
		if ends[i] != nil {
			m.ends[t.ID] = ends[i]
		}
	}
	return m, nil
}

// beyond says which of some topics go on behind the moment, so that transactions which came after
// it may be in them and not in the others; "": none. Where compaction takes records while they are
// read, what they gave way to may be further on, and is read as well.
func (m *moment) beyond(topics []Topic) string {
	for _, t := range topics {
		for i, p := range t.Partitions {
			why := ""
			switch end := m.ends[t.ID][i]; {
			case p.End > end.Offset:
				why = "was compacted while it was read, so it has records of a little later than the others"
			case end.Epoch < 0 || p.Epoch < end.Epoch:
				why = "may have gone on without a majority meanwhile: its leader epoch is not known"
			}
			if why != "" {
				why = fmt.Sprintf("partition %d of %s %s", i, t.Name, why)
				return why[:min(len(why), maxTorn)]
			}
		}
	}
	return ""
}

// cut has a partition end at end, as its log, which was looked at since, did then.
func (p *Partition) cut(end End) error {
	if p.End < end.Offset || end.Epoch >= 0 && int64(p.Epoch)-int64(end.Epoch) >= fsm.RecoveryGap/2 {
		return fmt.Errorf("the log ended at offset %d in epoch %d, and a moment later at %d in epoch %d: it went on without a majority", end.Offset, end.Epoch, p.End, p.Epoch)
	}
	p.Start, p.End = min(p.Start, end.Offset), end.Offset // retention may have freed all of it
	return nil
}
