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
