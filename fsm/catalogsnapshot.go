package fsm

import (
	"encoding/json"
	"fmt"
	"slices"
)

const (
	catalogMagic = "TriC"
	// catalogVersion is 3: partitions have voters. 1 had no next_producer_id.
	catalogVersion = 3
	// catalogBefore is the version for clusters in which not all know levelVoters.
	catalogBefore = 2
)

// catalogFile is a catalog's snapshot, JSON inside of the envelope. Lists are
// sorted and encoding/json sorts maps, so the same catalog has the same bytes.
type catalogFile struct {
	Applied   Index     `json:"applied"`
	ClusterID string    `json:"cluster_id"`
	Version   Index     `json:"version"`
	Nodes     []Node    `json:"nodes"`
	Topics    []*Topic  `json:"topics"`
	Deleted   []TopicID `json:"deleted"`

	NextProducerID int64 `json:"next_producer_id"`
	FeatureLevel   int   `json:"level,omitempty"`

	Groups *Topic `json:"groups,omitempty"` // the shards of consumer groups

	Broker map[string]string `json:"broker,omitempty"` // configurations of the broker
	// Brokers are configurations of all brokers.
	Brokers map[string]string `json:"brokers,omitempty"`

	Left []string `json:"left,omitempty"` // identities of nodes that have left, since level 3

	Security *securityFile `json:"security,omitempty"` // since level 4

	ProducerFloor int64 `json:"producer_floor,omitempty"` // since LevelRestore
}

// Snapshot gives the whole catalog as bytes, in the version that all nodes of the cluster know; the
// same catalog, the same bytes.
func (c *Catalog) Snapshot() []byte {
	version, topics, groups := uint16(catalogVersion), c.view.all, c.view.groups
	if c.view.FeatureLevel() < levelVoters {
		version, topics, groups = catalogBefore, withoutVoters(topics), withoutVoters([]*Topic{groups})[0]
	}
	return seal(catalogMagic, version, func(b []byte) []byte {
		data, err := json.Marshal(catalogFile{
			Applied:   c.applied,
			ClusterID: c.view.clusterID,
			Version:   c.view.version,
			Nodes:     list(c.view.nodes),
			Topics:    list(topics),
			Deleted:   list(c.deleted),

			NextProducerID: c.nextProducerID,
			FeatureLevel:   c.view.featureLevel,

			Groups: groups,

			Broker:  c.view.broker[false],
			Brokers: c.view.broker[true],
			Left:    c.view.left,

			Security: c.view.security.file(),

			ProducerFloor: c.view.producerFloor,
		})
		if err != nil {
			// strings, numbers and maps of them always do
			panic("fsm: a catalog does not encode: " + err.Error())
		}
		return append(b, data...)
	})
}

// list makes no difference between an empty list and none.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// RestoreCatalog gives the catalog that Snapshot was called on. The error wraps
// ErrSnapshot and says what is wrong: damage, another kind of file, a format
// newer than this program, or contents that no catalog can have.
func RestoreCatalog(data []byte) (*Catalog, error) {
	payload, version, err := unseal(catalogMagic, catalogVersion, data)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	var file catalogFile
	if err := json.Unmarshal(payload, &file); err != nil {
		return nil, fmt.Errorf("catalog: %w: %w", ErrSnapshot, err)
	}
	if version < catalogVersion {
		file.Topics, file.Groups = withoutVoters(file.Topics), withoutVoters([]*Topic{file.Groups})[0]
	}
	c, err := file.catalog()
	if err != nil {
		return nil, fmt.Errorf("catalog: %w: %w", ErrSnapshot, err)
	}
	return c, nil
}

// catalog rebuilds the machine and checks what its methods rely on. Names and
// values of configurations are not checked: what was allowed when it was set
// must not keep a node from starting.
func (file *catalogFile) catalog() (*Catalog, error) {
	view := emptyTopics()
	view.clusterID, view.version, view.featureLevel = file.ClusterID, file.Version, file.FeatureLevel
	if file.FeatureLevel < 0 {
		return nil, fmt.Errorf("level %d", file.FeatureLevel)
	}
	if file.FeatureLevel > FeatureLevel {
		// What was not understood is not in this catalog.
		return nil, newer("a catalog of level %d, this program knows %d", file.FeatureLevel, FeatureLevel)
	}
	if file.Version > file.Applied {
		return nil, fmt.Errorf("changed at index %d, applied up to %d", file.Version, file.Applied)
	}
	if file.ClusterID != "" {
		if err := checkClusterID(file.ClusterID); err != nil {
			return nil, err
		}
	}
	for _, node := range file.Nodes {
		if err := node.check(); err != nil {
			return nil, err
		}
		if n := len(view.nodes); n > 0 && view.nodes[n-1].ID >= node.ID {
			return nil, fmt.Errorf("node %s is out of order", node.ID)
		}
		view.nodes = append(view.nodes, node)
	}
	for _, topic := range file.Topics {
		if topic == nil {
			return nil, fmt.Errorf("an empty topic")
		}
		if n := len(view.all); n > 0 && view.all[n-1].Name >= topic.Name {
			return nil, fmt.Errorf("topic %q is out of order", topic.Name)
		}
		if topic.Internal() {
			return nil, fmt.Errorf("topic %q among those of clients", topic.Name)
		}
		if err := view.checkStored(topic); err != nil {
			return nil, err
		}
		view.all = append(view.all, topic)
		view.byName[topic.Name], view.byID[topic.ID], view.byMetric[metricName(topic.Name)] = topic, topic, topic
	}
	if file.Groups != nil {
		if !file.Groups.Internal() {
			return nil, fmt.Errorf("topic %q is not the shards of consumer groups", file.Groups.Name)
		}
		if err := view.checkStored(file.Groups); err != nil {
			return nil, err
		}
		view.groups = file.Groups
	}
	for all, set := range map[bool]map[string]string{false: file.Broker, true: file.Brokers} {
		if len(set) > 0 {
			if view.broker == nil {
				view.broker = BrokerSettings{}
			}
			view.broker[all] = set
		}
	}
	if len(file.Left) > maxLeft {
		return nil, fmt.Errorf("%d nodes that have left, want at most %d", len(file.Left), maxLeft)
	}
	view.left = slices.Clip(file.Left)
	var err error
	if view.security, err = file.Security.security(file.Applied); err != nil {
		return nil, err
	}
	if len(file.Deleted) > maxDeleted {
		return nil, fmt.Errorf("%d deleted topics, want at most %d", len(file.Deleted), maxDeleted)
	}
	if file.NextProducerID < 0 {
		return nil, fmt.Errorf("next producer id %d", file.NextProducerID)
	}
	if file.ProducerFloor < 0 {
		return nil, fmt.Errorf("producer ids from %d on", file.ProducerFloor)
	}
	view.producerFloor = file.ProducerFloor
	return &Catalog{applied: file.Applied, view: view, deleted: slices.Clip(file.Deleted), nextProducerID: file.NextProducerID}, nil
}
