package fsm

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// shardsOn gives a command for n shards on nodes n1 and n2, in turns.
func shardsOn(n int) *CreateGroupShards {
	c := &CreateGroupShards{ReplicationFactor: 2}
	for i := range n {
		on := []NodeID{"n1", "n2"}
		if i%2 == 1 {
			on = []NodeID{"n2", "n1"}
		}
		c.Partitions = append(c.Partitions, Partition{Replicas: on, Bootstrap: on})
	}
	return c
}

func catalogWithShards(t testing.TB) *Catalog {
	t.Helper()
	c := raisedCatalog(t)
	if r := c.Apply(9, CatalogCommand{CreateGroupShards: shardsOn(4)}.Encode()); r.Err != nil {
		t.Fatal(r.Err)
	}
	return c
}

// raisedCatalog is the sample where all nodes know what this program knows.
func raisedCatalog(t testing.TB) *Catalog {
	t.Helper()
	c := sampleCatalog()
	for i, node := range c.View().Nodes() {
		node.FeatureLevel = FeatureLevel
		if r := c.Apply(Index(6+i), CatalogCommand{RegisterNode: &node}.Encode()); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if r := c.Apply(8, CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{FeatureLevel}}.Encode()); r.Err != nil {
		t.Fatal(r.Err)
	}
	return c
}

func TestShardsWaitForTheLastOldProgram(t *testing.T) {
	c := sampleCatalog()
	if r := c.Apply(5, CatalogCommand{CreateGroupShards: shardsOn(4)}.Encode()); outcome.Code(r.Err) != outcome.ErrFeatureLevel {
		t.Errorf("created in a cluster of level %d: %v", c.View().FeatureLevel(), r.Err)
	}
}

// The shards are where replicas are placed and opened, and nowhere that a client
// could see or change them.
func TestGroupShardsAreNoTopicOfClients(t *testing.T) {
	c := catalogWithShards(t)
	restored, err := RestoreCatalog(c.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Catalog{c, restored} {
		view := c.View()
		shards, ok := view.GroupShards()
		if !ok || len(shards.Partitions) != 4 || !shards.Internal() {
			t.Fatalf("shards %+v, %v", shards, ok)
		}
		if p, ok := view.Partition(PartitionID{GroupShardsID, 3}); !ok || !slices.Equal(p.Replicas, []NodeID{"n2", "n1"}) {
			t.Errorf("shard 3 is on %+v, %v", p, ok)
		}
		if _, ok := view.Partition(PartitionID{GroupShardsID, 4}); ok {
			t.Error("there is a shard too many")
		}
		if all := view.Placed(); len(all) != 2 || all[1] != shards {
			t.Errorf("placed are %+v", all)
		}
		_, byName := view.Lookup(GroupShardsName)
		_, byID := view.ByID(GroupShardsID)
		if byName || byID || slices.Contains(view.All(), shards) {
			t.Error("clients see the shards")
		}
	}
	version := c.View().Version()
	more := shardsOn(4).Partitions[:1]
	for i, command := range []CatalogCommand{
		{DeleteTopic: &DeleteTopic{ID: GroupShardsID}},
		{DeleteTopic: &DeleteTopic{Name: GroupShardsName}},
		{AlterConfigs: &AlterConfigs{Topic: GroupShardsID, Changes: []ConfigChange{{"retention.ms", SetConfig, "1"}}}},
		{CreatePartitions: &CreatePartitions{GroupShardsID, 4, more}},
		{CreateTopic: &CreateTopic{Topic{Name: GroupShardsName, ID: TopicID{15: 9}, ReplicationFactor: 2, Partitions: more}}},
		{CreateTopic: &CreateTopic{Topic{Name: "fine", ID: GroupShardsID, ReplicationFactor: 2, Partitions: more}}},
		{RemoveNode: &RemoveNode{"n2", "bbbbbbbb"}},
	} {
		if r := c.Apply(Index(10+i), command.Encode()); r.Err == nil {
			t.Errorf("command %d was obeyed", i)
		}
	}
	// Created again: nothing changes.
	if r := c.Apply(20, CatalogCommand{CreateGroupShards: shardsOn(8)}.Encode()); r.Err != nil {
		t.Error(r.Err)
	}
	if view := c.View(); view.Version() != version {
		t.Errorf("version %d became %d", version, view.Version())
	}
}

// The shards keep a node from leaving, also when it holds nothing else.
func TestGroupShardsKeepTheirNodes(t *testing.T) {
	c := catalogWithShards(t)
	c.Apply(10, CatalogCommand{DeleteTopic: &DeleteTopic{Name: "orders"}}.Encode())
	if r := c.Apply(11, CatalogCommand{RemoveNode: &RemoveNode{"n2", "bbbbbbbb"}}.Encode()); r.Err == nil {
		t.Error("a node was removed that holds shards")
	}
}

func TestImpossibleGroupShardsAreRefused(t *testing.T) {
	bad := map[string]*CreateGroupShards{
		"none":            {ReplicationFactor: 2},
		"too many":        shardsOn(MaxGroupShards + 1),
		"no factor":       {Partitions: shardsOn(1).Partitions},
		"another factor":  {ReplicationFactor: 1, Partitions: shardsOn(1).Partitions},
		"an unknown node": {ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n9"}, Bootstrap: []NodeID{"n9"}}}},
		"not formed so":   {ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n2"}}}},
	}
	for name, command := range bad {
		c := raisedCatalog(t)
		if r := c.Apply(9, CatalogCommand{CreateGroupShards: command}.Encode()); r.Err == nil {
			t.Errorf("%s: created", name)
		}
		if _, ok := c.View().GroupShards(); ok {
			t.Errorf("%s: there are shards", name)
		}
	}
}

func TestShardEntries(t *testing.T) {
	groups := []ShardCommand{{Bytes: []byte("a")}, {Bytes: []byte{}}, {Bytes: bytes.Repeat([]byte("b"), 300)}}
	both := append(slices.Clone(groups), ShardCommand{true, []byte("c")}, ShardCommand{true, nil})
	for first, commands := range map[byte][]ShardCommand{controlGroups: groups, controlShard: both} {
		data := ShardEntry(commands...)
		if data[0] != first {
			t.Errorf("%d commands are in an entry of kind %#x, want %#x", len(commands), data[0], first)
		}
		if IsRecords(data) {
			t.Error("it reads as records")
		}
		if got, err := shardCommands(data); err != nil || !slices.EqualFunc(got, commands, sameCommand) {
			t.Errorf("got %v, %v", got, err)
		}
		// In a partition's log it does nothing.
		p := NewPartition()
		if applied := p.Apply(Entry{Index: 1, Term: 1, Data: data}); applied.Err == nil || p.NextOffset() != 0 {
			t.Errorf("a partition took it: %+v", applied)
		}
	}
	if got := groupEntry([]byte("a"), []byte("bc")); string(got) != "\x82\x01a\x02bc" {
		t.Errorf("commands of groups alone are %x, as earlier programs have them they are not", got)
	}
	if _, err := shardCommands([]byte{controlShard, 2, 0}); !errors.Is(err, ErrNewer) {
		t.Errorf("a command of another kind: %v, want ErrNewer", err)
	}
}

func sameCommand(a, b ShardCommand) bool {
	return a.Transactional == b.Transactional && bytes.Equal(a.Bytes, b.Bytes)
}

func shardCommands(data []byte) (commands []ShardCommand, err error) {
	for c, err := range ShardCommands(data) {
		if err != nil {
			return commands, err
		}
		commands = append(commands, c)
	}
	return commands, nil
}

// Any bytes may be committed to a shard's log.
func FuzzShardCommands(f *testing.F) {
	f.Add(groupEntry([]byte("a"), []byte("bc")))
	f.Add(ShardEntry(ShardCommand{Bytes: []byte("a")}, ShardCommand{true, []byte("bc")}))
	f.Add([]byte{controlGroups, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{controlGroups, 5, 1})
	f.Add([]byte{controlShard, 1, 5, 1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		commands, err := shardCommands(data)
		if err != nil {
			return
		}
		again, err := shardCommands(ShardEntry(commands...))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(commands, again, sameCommand) {
			t.Fatalf("%v became %v", commands, again)
		}
	})
}

// groupEntry is an entry with these commands of consumer groups.
func groupEntry(commands ...[]byte) []byte {
	all := make([]ShardCommand, len(commands))
	for i, c := range commands {
		all[i].Bytes = c
	}
	return ShardEntry(all...)
}
