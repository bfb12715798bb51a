package fsm

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
)

// This file is what the catalog and a Raft log know of consumer groups. Their
// coordinators are spread over shards: Raft groups like those of partitions, placed
// and moved like them, whose log holds commands of package coordinator instead of
// records. To the catalog they are the partitions of one topic that no client sees.

// GroupShardsID is the id of that topic. It is none that is ever minted (those are
// version 4 UUIDs, RFC 9562), so that a Raft group, a folder or a call says by its
// name alone which kind it is.
var GroupShardsID = TopicID([]byte("trimaran groups\x00"))

// GroupShardsName is its name; no client can create a topic of such a name.
const GroupShardsName = "consumer groups"

// MaxGroupShards bounds their number.
const MaxGroupShards = 1024

// CreateGroupShards creates the shards of consumer groups, which the proposer has
// placed. There is one such topic: the first command creates it, later ones change
// nothing.
type CreateGroupShards struct {
	ReplicationFactor int         `json:"replication_factor"`
	Partitions        []Partition `json:"partitions"`
}

// Internal reports whether this is no topic of clients.
func (t *Topic) Internal() bool { return t.ID == GroupShardsID }

// GroupShards gives the shards of consumer groups; false: they were not needed yet.
func (t *Topics) GroupShards() (*Topic, bool) { return t.groups, t.groups != nil }

// Placed gives everything that has replicas on nodes: All, and the shards of
// consumer groups behind them.
func (t *Topics) Placed() []*Topic {
	if t.groups == nil {
		return t.All()
	}
	return append(t.All(), t.groups)
}

// placed finds one of Placed.
func (t *Topics) placed(id TopicID) (*Topic, bool) {
	if id == GroupShardsID {
		return t.groups, t.groups != nil
	}
	topic, ok := t.byID[id]
	return topic, ok
}

func (c *Catalog) createGroupShards(create *CreateGroupShards) (*Topics, error) {
	if c.view.groups != nil {
		return c.view, nil
	}
	topic := &Topic{Name: GroupShardsName, ID: GroupShardsID, Partitions: create.Partitions, ReplicationFactor: create.ReplicationFactor}
	replicas := make([][]NodeID, len(topic.Partitions))
	for i, p := range topic.Partitions {
		if !slices.Equal(p.Replicas, p.Bootstrap) {
			return nil, fmt.Errorf("%w: shard %d: its group is formed with %q and its replicas are %q", outcome.ErrInvalidAssignment, i, p.Bootstrap, p.Replicas)
		}
		if err := p.checkNoVoters(); err != nil {
			return nil, err
		}
		replicas[i] = p.Replicas
	}
	if err := CheckAssignment(replicas, topic.ReplicationFactor, c.view.isRegistered); err != nil {
		return nil, err
	}
	if err := c.view.checkShards(topic); err != nil {
		return nil, err
	}
	topic.Partitions = c.view.toForm(topic.Partitions)
	return c.view.withTopic(topic), nil
}

// checkShards checks what no client gave.
func (t *Topics) checkShards(topic *Topic) error {
	switch n := len(topic.Partitions); {
	case t.groups != nil:
		return fmt.Errorf("%w: the shards of consumer groups", outcome.ErrTopicExists)
	case topic.Name != GroupShardsName || topic.ID != GroupShardsID:
		return fmt.Errorf("%w: %q is not the name of an internal topic", outcome.ErrInvalidTopicName, topic.Name)
	case n < 1 || n > MaxGroupShards:
		return fmt.Errorf("%w: %d shards, want 1 to %d", outcome.ErrInvalidPartitions, n, MaxGroupShards)
	case topic.ReplicationFactor < 1 || topic.ReplicationFactor > len(t.nodes):
		return fmt.Errorf("%w: %d, and the cluster has %d nodes", outcome.ErrInvalidReplicationFactor, topic.ReplicationFactor, len(t.nodes))
	case len(topic.Configs) > 0:
		return fmt.Errorf("%w: an internal topic has none", outcome.ErrInvalidConfig)
	}
	return nil
}

// ShardCommand is a command in an entry of a shard's log: of package coordinator, or of package
// transaction, since a transactional id lives in a shard of consumer groups, too.
type ShardCommand struct {
	Transactional bool
	Bytes         []byte
}

// An entry of a shard's log is controlGroups and then commands of package coordinator, each behind
// its length (a variable-length integer of encoding/binary). One with commands of package
// transaction in it, which only a cluster of level LevelTransactions has, is controlShard, and each
// command has one more byte before its length: 0 for coordinator's, 1 for transaction's.

// ShardEntry gives the data of an entry with these commands, at least one.
func ShardEntry(commands ...ShardCommand) []byte {
	size, kind := 1, byte(controlGroups)
	for _, c := range commands {
		size += 1 + binary.MaxVarintLen32 + len(c.Bytes)
		if c.Transactional {
			kind = controlShard
		}
	}
	data := append(make([]byte, 0, size), kind)
	for _, c := range commands {
		if kind == controlShard {
			data = append(data, 0)
			if c.Transactional {
				data[len(data)-1] = 1
			}
		}
		data = append(binary.AppendUvarint(data, uint64(len(c.Bytes))), c.Bytes...)
	}
	return data
}

// IsShardEntry reports whether an entry's data are such commands.
func IsShardEntry(data []byte) bool {
	return len(data) > 0 && (data[0] == controlGroups || data[0] == controlShard)
}

// ShardCommands gives the commands of an entry, which alias data. After an error
// there are no more.
func ShardCommands(data []byte) iter.Seq2[ShardCommand, error] {
	return func(yield func(ShardCommand, error) bool) {
		if len(data) > 0 && data[0] > controlShard {
			yield(ShardCommand{}, newer("control command %#x", data[0]))
			return
		}
		if !IsShardEntry(data) {
			yield(ShardCommand{}, fmt.Errorf("%w: no commands of consumer groups", outcome.ErrUnknown))
			return
		}
		for rest := data[1:]; len(rest) > 0; {
			var command ShardCommand
			if data[0] == controlShard {
				if rest[0] > 1 {
					yield(command, newer("command of kind %d in a shard", rest[0]))
					return
				}
				command.Transactional, rest = rest[0] == 1, rest[1:]
			}
			size, n := binary.Uvarint(rest)
			if n <= 0 || size > uint64(len(rest)-n) {
				yield(ShardCommand{}, fmt.Errorf("%w: a command of consumer groups is cut short", outcome.ErrUnknown))
				return
			}
			command.Bytes = rest[n : n+int(size) : n+int(size)]
			rest = rest[n+int(size):]
			if !yield(command, nil) {
				return
			}
		}
	}
}
