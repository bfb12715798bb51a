package fsm

import (
	"errors"
	"slices"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// No configuration is taken and forgotten: it is obeyed, or a reason says why it need not be.
func TestEveryConfigIsObeyedOrSaysWhyNot(t *testing.T) {
	for _, c := range slices.Concat(Configs(), BrokerConfigs()) {
		if !c.Effect && c.Note == "" {
			t.Errorf("%s has no effect, and nothing says why that does no harm", c.Name)
		}
		if c.Default != "" {
			if err := c.Check(c.Default); err != nil {
				t.Errorf("the default of %s: %v", c.Name, err)
			}
		}
	}
}

// What cannot be obeyed is refused when it is asked for, and what a topic has stays.
func TestConfigsThatCannotBeObeyedAreRefused(t *testing.T) {
	for _, test := range []struct {
		set, wanted map[string]string
		factor      int
		ok          bool
	}{
		{nil, map[string]string{"min.insync.replicas": "2"}, 3, true},
		{nil, map[string]string{"min.insync.replicas": "3"}, 3, false},
		{nil, map[string]string{"min.insync.replicas": "2"}, 2, true},
		{nil, map[string]string{"min.insync.replicas": "2"}, 1, false},
		// from before
		{map[string]string{"min.insync.replicas": "3"}, map[string]string{"min.insync.replicas": " 3", "retention.ms": "5"}, 3, true},
		{nil, map[string]string{"compression.gzip.level": "0"}, 1, false},
		{nil, map[string]string{"compression.gzip.level": "-1"}, 1, true},
		{nil, map[string]string{"message.format.version": "0.10.2"}, 1, true},
		{nil, map[string]string{"message.format.version": "3.0-IV1"}, 1, true},
		{nil, map[string]string{"message.format.version": "newest"}, 1, false},
		{nil, map[string]string{"leader.replication.throttled.replicas": "0:1, 1:2"}, 1, true},
		{nil, map[string]string{"leader.replication.throttled.replicas": "*"}, 1, true},
		{nil, map[string]string{"leader.replication.throttled.replicas": ""}, 1, true},
		{nil, map[string]string{"follower.replication.throttled.replicas": "n1"}, 1, false},
		{nil, map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"}, 1, false},
		{nil, map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "10"}, 1, true},
		{nil, map[string]string{"local.retention.bytes": "10", "retention.bytes": "10"}, 1, true},
		{nil, map[string]string{"local.retention.bytes": "11", "retention.bytes": "10"}, 1, true},
		{nil, map[string]string{"local.retention.bytes": "11", "retention.bytes": "10", "remote.storage.enable": "true"}, 1, false},
		{nil, map[string]string{"local.retention.bytes": "11"}, 1, true},
		{nil, map[string]string{"local.retention.ms": "-1"}, 1, true},
		{nil, map[string]string{"local.retention.ms": "-1", "remote.storage.enable": "true"}, 1, false},
		{nil, map[string]string{"local.retention.ms": "-1", "retention.ms": "-1", "remote.storage.enable": "true"}, 1, true},
		{nil, map[string]string{"local.retention.ms": "-2", "retention.ms": "5", "remote.storage.enable": "true"}, 1, true},
		{nil, map[string]string{"remote.storage.enable": "TRUE"}, 1, true},
		// A tier is not forgotten: it is deleted, or stays.
		{map[string]string{"remote.storage.enable": "true"}, map[string]string{"remote.storage.enable": "false"}, 1, false},
		{map[string]string{"remote.storage.enable": "true"}, nil, 1, false},
		{map[string]string{"remote.storage.enable": "true"}, map[string]string{"remote.log.delete.on.disable": "true"}, 1, true},
		{map[string]string{"remote.storage.enable": "true"}, map[string]string{"remote.storage.enable": "true", "remote.log.copy.disable": "true"}, 1, true},
	} {
		err := CheckWish(test.set, test.wanted, test.factor)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, outcome.ErrInvalidConfig) {
			t.Errorf("%v, before %v, %d replicas: %v", test.wanted, test.set, test.factor, err)
		}
	}
}

// A list that is empty between two changes of one command makes the command void below level 3, as
// in programs that know no empty lists.
func TestAListThatIsEmptyForAMomentNeedsLevel3(t *testing.T) {
	changes := []ConfigChange{{"cleanup.policy", SubtractConfig, "delete"}, {"cleanup.policy", AppendConfig, "compact"}}
	for _, level := range []int{2, 3} {
		c := twoIncarnations(t, level)
		err := c.Apply(100, CatalogCommand{AlterConfigs: &AlterConfigs{Topic: TopicID{15: 2}, Changes: changes}}.Encode()).Err
		if errors.Is(err, outcome.ErrInvalidConfig) != (level < 3) || (err == nil) != (level >= 3) {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

// A topic has a tier from level 8 on: programs of before refuse the configuration.
func TestATierNeedsLevel8(t *testing.T) {
	enable := []ConfigChange{{"remote.storage.enable", SetConfig, "true"}}
	for _, level := range []int{7, 8} {
		c := NewCatalog()
		for i, command := range []CatalogCommand{
			{FormCluster: &FormCluster{"c", []Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: level}}}},
			{RaiseFeatureLevel: &RaiseFeatureLevel{level}},
			{CreateTopic: &CreateTopic{Topic{Name: "a", ID: TopicID{15: 2}, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}}},
		} {
			if err := c.Apply(Index(i+1), command.Encode()).Err; err != nil {
				t.Fatal(err)
			}
		}
		alter := CatalogCommand{AlterConfigs: &AlterConfigs{Topic: TopicID{15: 2}, Changes: enable}}
		create := CatalogCommand{CreateTopic: &CreateTopic{Topic: Topic{Name: "t", ID: TopicID{15: 9}, Configs: map[string]string{"remote.storage.enable": "true"}}}}
		restored := CatalogCommand{CreateTopic: &CreateTopic{Topic: Topic{Name: "r", ID: TopicID{15: 10}, Origin: "b", Configs: map[string]string{"remote.storage.enable": "true"}}}}
		for _, command := range []CatalogCommand{alter, create, restored} {
			if err := c.View().CheckProposal(command.Encode()); errors.Is(err, outcome.ErrFeatureLevel) != (level < 8) {
				t.Errorf("level %d: %v", level, err)
			}
		}
		if err := c.Apply(100, alter.Encode()).Err; (err == nil) != (level >= 8) {
			t.Errorf("level %d: %v", level, err)
		}
	}
}
