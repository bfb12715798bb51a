package status

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// Here is what runs on this node. Its methods are called from any goroutine and do not wait.
type Here interface {
	// Topics gives the catalog as this node knows it. It must not be changed.
	Topics() *fsm.Topics
	// Catalog gives the member of the catalog's group, nil before there is one.
	Catalog() CatalogMember
	// Replica gives what runs here of a partition or a shard, nil if nothing does; Running gives
	// all.
	Replica(id fsm.PartitionID) Replica
	Running() []Replica
	// Broken reports whether a replica that should run here cannot be opened.
	Broken(id fsm.PartitionID) bool
	// Troubles says why replicas cannot be opened, and what those that run cannot read.
	Troubles() (broken, hurt map[fsm.PartitionID]error)
	// Space gives the bytes of the disk of the data directory; Full: no records are taken.
	Space() (free, total int64)
	Full() bool
}

// Member is this node's member of a group.
type Member interface {
	Leader() (identity string, term uint64) // that it knows, "" for none
	Servers() ([]raft.Server, error)        // by its newest configuration
	Stuck() bool                            // an append there does not end
	// its leader's node is alive and does not say that it leads
	Denied() bool
}

// CatalogMember is this node's member of the catalog's group.
type CatalogMember interface {
	Member
	Leads() bool
	Term() uint64
	End() int64 // index behind the last entry of its log
}

// Replica is a replica that runs here.
type Replica interface {
	ID() fsm.PartitionID
	Member() Member
	ThinksItLeads() bool
	ServesAsLeader() bool             // it leads and is past its barrier
	WasLed() bool                     // it knew a leader once
	Bounds() (start, next fsm.Offset) // what can be read here
	Transactions() Transactions       // that are open
	Compaction() Compaction
	// Tier says what of the partition is in the tier; nil if that was never used.
	Tier() *admin.TierStatus
	// Unseen says what of its tier this node does not see in its store; "": nothing is known.
	Unseen() string
	Bytes() int64                  // of its log
	CatchUp() *admin.CatchUpStatus // nil unless it is being copied
}

// Compaction is how far a partition of a compacted topic is.
type Compaction struct {
	Compacted  bool    // the topic is to be; else nothing below counts
	DirtyRatio float64 // of the bytes of closed segments, those that are not compacted
	Waits      bool    // something is decided and not carried out here
}

// Transactions are those that are open in a partition.
type Transactions struct {
	Open   int           // how many
	Oldest time.Duration // age of the oldest
	Late   bool          // that one should have been ended by now
	Behind int64         // offsets below the high watermark that readers of committed records lack
}

// Presence says who is there (liveness.Nodes).
type Presence interface {
	Connected(identity string) bool
	Here(view *fsm.Topics) map[fsm.NodeID]bool
	MajorityHere(servers []raft.Server) bool
}
