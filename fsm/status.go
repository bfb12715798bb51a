package fsm

// Status is what an operator sees of a cluster. It is gathered from all nodes,
// not replicated: two nodes asked at once may tell it slightly differently.
type Status struct {
	ClusterID  string        `json:"cluster_id"` // "": not formed yet
	Controller NodeID        `json:"controller"` // the node that leads the catalog, "": none known
	Nodes      []NodeStatus  `json:"nodes"`      // registered nodes, by id
	Topics     []TopicStatus `json:"topics"`     // by name
}

// NodeStatus is one registered node.
type NodeStatus struct {
	ID            NodeID `json:"id"`
	Identity      string `json:"identity"`
	PeerAddress   string `json:"peer_address"`   // host:port, "" if not known
	ClientAddress string `json:"client_address"` // host:port, "" if not known
	Zone          string `json:"zone"`
	Version       string `json:"version"` // of the program it runs
	Alive         bool   `json:"alive"`   // it answered when asked
	Leaders       int    `json:"leaders"` // partitions it leads
	Replicas      int    `json:"replicas"`
	DiskFree      int64  `json:"disk_free"`    // bytes, where the partitions are; 0: not known
	DiskTotal     int64  `json:"disk_total"`   // bytes
	CatalogRole   string `json:"catalog_role"` // "leader", "voter", "nonvoter", "": not known
}

// TopicStatus is one topic.
type TopicStatus struct {
	Name              string            `json:"name"`
	ID                TopicID           `json:"id"`
	ReplicationFactor int               `json:"replication_factor"`
	Configs           map[string]string `json:"configs,omitempty"`
	Partitions        []PartitionStatus `json:"partitions"` // by number
}

// PartitionStatus is one partition as its replicas tell it.
type PartitionStatus struct {
	Partition     int32           `json:"partition"`
	Leader        NodeID          `json:"leader"` // "": none
	Term          Term            `json:"term"`
	LogStart      Offset          `json:"log_start"`
	HighWatermark Offset          `json:"high_watermark"`
	Replicas      []ReplicaStatus `json:"replicas"` // the preferred leader first
}

// ReplicaStatus is one replica of a partition.
type ReplicaStatus struct {
	Node    NodeID `json:"node"`
	Role    string `json:"role"`    // "leader", "follower", "copying", "damaged", "offline"
	Applied Offset `json:"applied"` // the replica's own end offset
	Lag     int64  `json:"lag"`     // records behind the partition's high watermark
	Bytes   int64  `json:"bytes"`   // of its log
	// CatchUp is how far the replica is with copying what it lacks; nil: it does not.
	CatchUp *CatchUpStatus `json:"catch_up,omitempty"`
	Error   string         `json:"error,omitempty"` // why it does not run
}

// CatchUpStatus is the progress of a replica that copies what it lacks.
type CatchUpStatus struct {
	Bytes          int64 `json:"bytes"`
	Total          int64 `json:"total"` // about
	BytesPerSecond int64 `json:"bytes_per_second"`
}
