// Package admin is what an operator asks of a cluster and what an operator sees of it.
//
// You are here: between gateway, which takes these requests off the wire, and cluster, which
// answers them; the command line shows them. Everything here is a value that travels as JSON, so no
// field is renamed; a request with a field that a node does not know is refused, an answer is read
// without it. Nothing here is replicated: what a request changes in the catalog is a command of
// package fsm, and cluster makes that out of it.
package admin

import "github.com/trimaran-io/trimaran/fsm"

// Status is what an operator sees of a cluster. It is gathered from all nodes,
// not replicated: two nodes asked at once may tell it slightly differently.
type Status struct {
	ClusterID    string     `json:"cluster_id"` // "": not formed yet
	Controller   fsm.NodeID `json:"controller"` // the node that leads the catalog, "": none known
	FeatureLevel int        `json:"level"`      // that the cluster has reached
	// Confirmed says that the catalog behind this status is the newest one: the catalog's leader
	// has said so after it was asked. Otherwise Unconfirmed says why not. What an unconfirmed
	// status does not list may be there, and what it lists may be gone.
	Confirmed   bool   `json:"confirmed"`
	Unconfirmed string `json:"unconfirmed,omitempty"`
	// CatalogVoters are the identities of the nodes that vote in the catalog's group, as its leader
	// says; empty: not known. A node that has left votes until the others do without it.
	CatalogVoters []string      `json:"catalog_voters,omitempty"`
	Nodes         []NodeStatus  `json:"nodes"`  // registered nodes, by id
	Topics        []TopicStatus `json:"topics"` // by name
	// GroupShards are the shards that the coordinators of consumer groups are spread
	// over, their replicas not counted among the nodes'. HighWatermark counts entries.
	// Empty: no client has used a group yet.
	GroupShards []PartitionStatus `json:"group_shards,omitempty"`
}

// NodeStatus is one registered node.
type NodeStatus struct {
	ID            fsm.NodeID    `json:"id"`
	Identity      string        `json:"identity"`
	PeerAddress   string        `json:"peer_address"`   // host:port, "" if not known
	ClientAddress string        `json:"client_address"` // host:port, "" if not known
	Zone          string        `json:"zone"`
	Version       string        `json:"version"` // of the program it runs
	Alive         bool          `json:"alive"`   // it answered when asked
	Leaders       int           `json:"leaders"` // partitions it leads
	Replicas      int           `json:"replicas"`
	State         fsm.NodeState `json:"state,omitempty"`
	// what its program knows, see fsm.FeatureLevel
	FeatureLevel int   `json:"level"`
	DiskFree     int64 `json:"disk_free"`           // bytes, below the data directory
	DiskTotal    int64 `json:"disk_total"`          // bytes; 0: not known
	DiskFull     bool  `json:"disk_full,omitempty"` // it takes no records
	// "leader", "voter", "nonvoter", "": not known
	CatalogRole string   `json:"catalog_role"`
	CatalogTerm fsm.Term `json:"catalog_term"` // of the catalog's group; 0: not known
	// index behind the last entry of the catalog's log here; 0: not known
	CatalogEnd int64 `json:"catalog_end"`
	// of the node that makes backups
	Backup *BackupStatus `json:"backup,omitempty"`
	// Compaction is what the node has done of it since it was started; nil: nothing.
	Compaction *NodeCompaction `json:"compaction,omitempty"`
}

// NodeCompaction is what a node has done to compact its replicas since it was started.
type NodeCompaction struct {
	Rounds int64 `json:"rounds"`
	LastMs int64 `json:"last_ms"` // end of the last round, ms since epoch; 0: none has ended
	Bytes  int64 `json:"bytes"`   // read and written for it
	Saved  int64 `json:"saved"`   // by which segments became smaller, bytes
}

// ReplicaCompaction is how far a replica of a compacted topic is.
type ReplicaCompaction struct {
	// DirtyRatio is the share of closed segments' bytes that are not compacted, 0 to 1.
	DirtyRatio float64 `json:"dirty_ratio"`
	Waits      bool    `json:"waits,omitempty"` // something is decided and not carried out here
}

// TopicStatus is one topic.
type TopicStatus struct {
	Name              string            `json:"name"`
	ID                fsm.TopicID       `json:"id"`
	ReplicationFactor int               `json:"replication_factor"`
	Configs           map[string]string `json:"configs,omitempty"`
	Partitions        []PartitionStatus `json:"partitions"` // by number
}

// PartitionStatus is one partition as its replicas tell it.
type PartitionStatus struct {
	Partition     int32           `json:"partition"`
	Leader        fsm.NodeID      `json:"leader"` // "": none
	Term          fsm.Term        `json:"term"`
	LogStart      fsm.Offset      `json:"log_start"`
	HighWatermark fsm.Offset      `json:"high_watermark"`
	Replicas      []ReplicaStatus `json:"replicas"` // the preferred leader first
	// Tier is how it stands with the store of its old records, as the leader says; nil: nothing of
	// it is there, or ever was.
	Tier *TierStatus `json:"tier,omitempty"`
}

// TierStatus is what of a partition lies in the tier's store.
type TierStatus struct {
	Segments   int        `json:"segments"`
	Bytes      int64      `json:"bytes"`               // of their records
	Waiting    int64      `json:"waiting"`             // that should be there, too
	LocalStart fsm.Offset `json:"local_start"`         // the first offset that replicas keep
	End        fsm.Offset `json:"end"`                 // behind what is there; -1: nothing is
	ToDelete   int        `json:"to_delete,omitempty"` // segments whose objects are to be deleted
	Dirty      bool       `json:"dirty,omitempty"`     // what is there is to be compacted
	Error      string     `json:"error,omitempty"`     // why the last attempt of the leader failed
}

// ReplicaStatus is one replica of a partition.
type ReplicaStatus struct {
	Node fsm.NodeID `json:"node"`
	// "leader", "follower", "non-voter", "copying", "damaged", "offline"
	Role    string     `json:"role"`
	Applied fsm.Offset `json:"applied"` // the replica's own end offset
	Lag     int64      `json:"lag"`     // records behind the partition's high watermark
	Bytes   int64      `json:"bytes"`   // of its log
	// CatchUp is how far the replica is with copying what it lacks; nil: it does not.
	CatchUp *CatchUpStatus `json:"catch_up,omitempty"`
	// Compaction is nil where the topic is not compacted.
	Compaction *ReplicaCompaction `json:"compaction,omitempty"`
	// Error is why it does not run, or what it cannot read.
	Error   string `json:"error,omitempty"`
	Leaving bool   `json:"leaving,omitempty"` // it goes when the others do without it
	// Unseen is what of its tier its node does not see in its store; what it has of that it keeps.
	// "": nothing is known.
	Unseen string `json:"unseen,omitempty"`
}

// CatchUpStatus is the progress of a replica that copies what it lacks.
type CatchUpStatus struct {
	Bytes          int64 `json:"bytes"`
	Total          int64 `json:"total"` // about
	BytesPerSecond int64 `json:"bytes_per_second"`
}

// PartitionCheck compares what the replicas of a partition have on their disks.
type PartitionCheck struct {
	Partition int32 `json:"partition"`
	// Compared are the batches with offsets from From to below To; End is where all
	// replicas that can be compared end now.
	From fsm.Offset `json:"from"`
	To   fsm.Offset `json:"to"`
	End  fsm.Offset `json:"end"`
	// DiffersAt and DiffersTo are the smallest range found in which not all are the
	// same; -1: all are.
	DiffersAt fsm.Offset     `json:"differs_at"`
	DiffersTo fsm.Offset     `json:"differs_to"`
	Replicas  []ReplicaCheck `json:"replicas"` // the preferred leader first
}

// ReplicaCheck is one replica in a PartitionCheck.
type ReplicaCheck struct {
	Node  fsm.NodeID `json:"node"`
	State string     `json:"state"` // "checked", "copying", "damaged", "offline"
	Error string     `json:"error,omitempty"`
	Bytes int64      `json:"bytes"` // of batches
	Hash  string     `json:"hash"`  // SHA-256 over offset, length and bytes of each batch, in hex
}
