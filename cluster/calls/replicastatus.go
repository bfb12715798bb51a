package calls

import (
	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// NodeReport is what a node says of its replicas.
type NodeReport struct {
	Catalog string   `json:"catalog"` // leader, voter, nonvoter
	Term    fsm.Term `json:"catalog_term,omitempty"`
	End     int64    `json:"catalog_end,omitempty"` // index behind the last entry of its log
	// CatalogVoters are the identities of who votes in the catalog, as one says that leads it, or
	// thinks so.
	CatalogVoters []string `json:"catalog_voters,omitempty"`

	Replicas map[string]ReplicaReport `json:"replicas"` // by fsm.PartitionID.String
	Broken   map[string]string        `json:"broken,omitempty"`

	DiskFree  int64 `json:"disk_free"`  // bytes
	DiskTotal int64 `json:"disk_total"` // bytes
	DiskFull  bool  `json:"disk_full"`

	Backup *admin.BackupStatus `json:"backup,omitempty"` // of the node that makes backups

	Compaction *admin.NodeCompaction `json:"compaction,omitempty"` // nil: none was done here
}

// ReplicaReport is what a node says of one replica.
type ReplicaReport struct {
	Leads    bool       `json:"leads"`
	Term     fsm.Term   `json:"term"`
	LogStart fsm.Offset `json:"log_start"`
	Applied  fsm.Offset `json:"applied"` // the next offset

	Bytes int64 `json:"bytes"` // of its log

	LocalStart fsm.Offset        `json:"local_start,omitempty"` // where what it keeps begins
	Tier       *admin.TierStatus `json:"tier,omitempty"`        // as the leader says
	// Unseen is what of its tier the node does not see in its store.
	Unseen string `json:"unseen,omitempty"`

	// Voters are the identities of those that vote, as the leader says: another replica's
	// configuration may be old.
	Voters []string `json:"voters,omitempty"`

	CatchUp    *admin.CatchUpStatus     `json:"catch_up,omitempty"`
	Compaction *admin.ReplicaCompaction `json:"compaction,omitempty"` // of a compacted topic
	Error      string                   `json:"error,omitempty"`      // in an answer's reading only
	// Hurt is what it cannot read, though it runs.
	Hurt string `json:"hurt,omitempty"`
}

var replicaStatusCall = Call[Nothing, NodeReport]{request: nothing(), answer: looseJSON[NodeReport](ErrMalformedAnswer)}
