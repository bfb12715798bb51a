package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/transaction"
)

// CopyCatalog gives what a backup keeps of the catalog, as it was when the call began or newer.
func (f *front) CopyCatalog(ctx context.Context) (*admin.CatalogCopy, error) {
	if err := f.catalog.CatchUp(ctx); err != nil {
		return nil, err
	}
	topics := f.catalog.View()
	out := &admin.CatalogCopy{ClusterID: topics.ClusterID(), FeatureLevel: topics.FeatureLevel(), Nodes: len(topics.Nodes()), Topics: []admin.TopicCopy{}}
	for _, t := range topics.All() {
		kept, err := strconv.ParseInt(t.ConfigOr(f.defaults, "delete.retention.ms"), 10, 64)
		if err != nil {
			kept = 0
		}
		out.Topics = append(out.Topics, admin.TopicCopy{
			Name: t.Name, ID: t.ID, Partitions: len(t.Partitions), ReplicationFactor: t.ReplicationFactor, Configs: t.Configs,
			Origin: t.Origin, Restoring: t.Restoring, Compacted: t.Compacted(f.defaults), DeleteRetentionMs: kept,
		})
	}
	security := topics.Security()
	out.Security = admin.CatalogSecurity{Credentials: security.Credentials(), ACLs: security.ACLs().All()}
	return out, nil
}

// LeadsCatalog reports whether this node leads the catalog, as far as it knows.
func (f *front) LeadsCatalog() bool {
	m := f.catalog.Member()
	return m != nil && seenMember{m}.Leads()
}

// RestoreBatches appends batches that keep their offsets to a partition of a topic that is being
// restored, and gives the next offset. What is there already is left out. last: nothing follows.
func (f *front) RestoreBatches(ctx context.Context, id fsm.PartitionID, batches []kafkaproto.Batch, last bool) (fsm.Offset, error) {
	return f.router.Restore(ctx, id, batches, last)
}

// EndRestore lets clients append to a topic that was restored, and returns when that is known at
// all connected nodes.
func (f *front) EndRestore(ctx context.Context, end fsm.EndRestore) error {
	return f.catalog.ChangeForAll(ctx, fsm.CatalogCommand{EndRestore: &end})
}

// HoldCommits has all coordinators hold commits of transactions (transaction.HoldCommits), and
// gives what ReleaseCommits takes. When it returns every commit that was decided has its markers
// everywhere. After an error nothing is held, or soon not any more.
func (f *front) HoldCommits(ctx context.Context) ([]admin.Hold, error) {
	shards, err := f.shards(ctx)
	if err != nil {
		return nil, err
	}
	if level := f.Topics().FeatureLevel(); level < fsm.LevelHolds {
		return nil, fmt.Errorf("%w: to hold commits needs level %d on all nodes, and the cluster is at %d", outcome.ErrFeatureLevel, fsm.LevelHolds, level)
	}
	holds := make([]admin.Hold, len(shards))
	var work errgroup.Group
	for i, shard := range shards {
		work.Go(func() (err error) {
			holds[i].Shard = shard
			if holds[i].Hold, err = f.groups.HoldCommits(ctx, shard, 0); err != nil {
				return fmt.Errorf("shard %d: %w", shard, err)
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		holds = slices.DeleteFunc(holds, func(h admin.Hold) bool { return h.Hold == 0 })
		_, _ = f.letGo(context.WithoutCancel(ctx), holds)
		return nil, err
	}
	return holds, nil
}

// ReleaseCommits lets go, and says whether all coordinators have held commits since HoldCommits
// returned, and there was no other one. What HoldCommits cannot have given is refused.
func (f *front) ReleaseCommits(ctx context.Context, holds []admin.Hold) (held bool, err error) {
	for _, h := range holds {
		if h.Hold == 0 || h.Shard < 0 || h.Shard >= coordinator.Shards {
			// To let go of 0 would begin a hold.
			return false, fmt.Errorf("invalid request: hold %d of shard %d", h.Hold, h.Shard)
		}
	}
	held, err = f.letGo(ctx, holds)
	if err != nil || !held {
		return false, err
	}
	// Where there was no shard nobody held, and there may be one now.
	shards, err := f.shards(ctx)
	for _, shard := range shards {
		held = held && slices.ContainsFunc(holds, func(h admin.Hold) bool { return h.Shard == shard })
	}
	return held && err == nil, err
}

// letGo is ReleaseCommits for these shards. All are asked, whatever one says.
func (f *front) letGo(ctx context.Context, holds []admin.Hold) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, transaction.HoldTime)
	defer cancel()
	var lost atomic.Bool
	var work errgroup.Group
	for _, h := range holds {
		work.Go(func() error {
			hold, err := f.groups.HoldCommits(ctx, h.Shard, h.Hold)
			if hold == 0 {
				lost.Store(true)
			}
			return err
		})
	}
	err = work.Wait()
	return err == nil && !lost.Load(), err
}

// shards gives the shards of groups and transactions that there are, as the catalog was when the
// call began or newer.
func (f *front) shards(ctx context.Context) (all []int, err error) {
	if err := f.catalog.CatchUp(ctx); err != nil {
		return nil, err
	}
	topics := f.catalog.View()
	for i := range coordinator.Shards {
		if _, there := topics.Partition(route.ShardID(i)); there {
			all = append(all, i)
		}
	}
	return all, nil
}
