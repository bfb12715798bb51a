package cluster

import (
	"context"
	"strconv"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
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
