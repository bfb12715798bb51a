package admin

import (
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security/acl"
)

// BackupOp is what a backup, or a restore, asks of a cluster beside what any client may ask.
type BackupOp string

// The operations.
const (
	BackupCatalog BackupOp = "catalog" // what a backup keeps of the catalog
	// HoldCommits has no transaction commit for a moment, and answers when all that were decided
	// have their markers everywhere. ReleaseCommits ends it, and says whether it was so all along.
	HoldCommits    BackupOp = "hold"
	ReleaseCommits BackupOp = "release"
	// RestoreTopic creates a topic that is to be restored. Done twice it creates once.
	RestoreTopic BackupOp = "create"
	// RestoreBatches appends batches that keep their offsets. What is there already is left out.
	RestoreBatches BackupOp = "append"
	// EndRestore lets clients append to a topic. Done twice it changes nothing.
	EndRestore BackupOp = "end"
	// RestoreSecurity sets users' credentials and adds ACLs.
	RestoreSecurity BackupOp = "security"
)

// BackupRequest is a request of a backup or a restore. Batches travel behind it.
type BackupRequest struct {
	Op        BackupOp         `json:"op"`
	Create    *fsm.TopicSpec   `json:"create,omitempty"` // of RestoreTopic
	Topic     fsm.TopicID      `json:"topic"`            // of RestoreBatches and EndRestore
	Partition int32            `json:"partition"`
	Last      bool             `json:"last,omitempty"`      // none follow: open transactions end
	Producers int64            `json:"producers,omitempty"` // of EndRestore, see fsm.EndRestore
	Security  *CatalogSecurity `json:"security,omitempty"`  // of RestoreSecurity
	Holds     []Hold           `json:"holds,omitempty"`     // of ReleaseCommits
}

// BackupAnswer is the answer to a BackupRequest.
type BackupAnswer struct {
	Error     string       `json:"error,omitempty"` // "": it was done
	Retriable bool         `json:"retriable,omitempty"`
	Catalog   *CatalogCopy `json:"catalog,omitempty"`
	Next      fsm.Offset   `json:"next,omitempty"`  // of RestoreBatches: the next offset
	Holds     []Hold       `json:"holds,omitempty"` // of HoldCommits
	Held      bool         `json:"held,omitempty"`  // of ReleaseCommits: they were held all along
}

// Hold is that of one shard's coordinator of transactions.
type Hold struct {
	Shard int    `json:"shard"`
	Hold  uint64 `json:"hold"`
}

// CatalogCopy is what a backup keeps of the catalog.
type CatalogCopy struct {
	ClusterID    string          `json:"cluster_id"`
	FeatureLevel int             `json:"level"`
	Nodes        int             `json:"nodes"`
	Topics       []TopicCopy     `json:"topics"`
	Security     CatalogSecurity `json:"security"`
}

// TopicCopy is a topic without its records.
type TopicCopy struct {
	Name              string            `json:"name"`
	ID                fsm.TopicID       `json:"id"`
	Partitions        int               `json:"partitions"`
	ReplicationFactor int               `json:"replication_factor"`
	Configs           map[string]string `json:"configs,omitempty"`
	Origin            string            `json:"origin,omitempty"` // see fsm.Topic
	Restoring         bool              `json:"restoring,omitempty"`
	// Compacted: its records are compacted, by its own configuration or by default.
	// DeleteRetentionMs is for how long tombstones are kept after that, ms.
	Compacted         bool  `json:"compacted,omitempty"`
	DeleteRetentionMs int64 `json:"delete_retention_ms,omitempty"`
}

// CatalogSecurity is who may log in and what they may do. The keys of tokens are not part of it:
// tokens end soon, and whoever has a backup should not be able to make some.
type CatalogSecurity struct {
	Credentials []fsm.Credential `json:"credentials,omitempty"`
	ACLs        []acl.Binding    `json:"acls,omitempty"`
}

// BackupStatus is what the node that makes backups says of them.
type BackupStatus struct {
	To         string `json:"to"` // the store
	IntervalMs int64  `json:"interval_ms"`
	// The last one that was made; ID "": there is none.
	ID       string `json:"id,omitempty"`
	BegunMs  int64  `json:"begun_ms,omitempty"` // ms since epoch
	TookMs   int64  `json:"took_ms,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	Uploaded int64  `json:"uploaded,omitempty"` // of these new to the store, if this node made it
	// Torn says why transactions may be torn in the last one; "": they are not, or it is of a
	// program that did not look.
	Torn string `json:"torn,omitempty"`
	// Failed counts those that were not made since the last, FailedInAll since this node makes
	// them. Error is why the last one was not.
	Failed      int    `json:"failed,omitempty"`
	FailedInAll int    `json:"failed_in_all,omitempty"`
	Error       string `json:"error,omitempty"`
}
