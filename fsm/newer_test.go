package fsm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/outcome"
)

// What a later program may write is not passed over: nothing is applied, not even the index, and
// the error says why. What no program writes is void, as it always was, and the log goes on.
func TestWhatANewerProgramWroteIsNotPassedOver(t *testing.T) {
	id := TopicID{15: 2}.String()
	for _, test := range []struct {
		command string
		newer   bool
	}{
		{`{"version":1,"rename_topic":{"id":"` + id + `","to":"b"}}`, true},
		{`{"version":1,"delete_topic":{"name":"stays","id":"` + id + `","force":true}}`, true},
		{`{"version":2,"delete_topic":{"name":"stays","id":"` + id + `"}}`, true},
		{`{"version":1,"set_node_state":{"id":"n1","state":"resting"}}`, true},
		{`{"version":1,"alter_configs":{"topic":"` + id + `","changes":[{"name":"later.config","op":"set","value":"1"}]}}`, true},
		{`{"version":1,"alter_configs":{"topic":"` + id + `","changes":[{"name":"retention.ms","op":"multiply","value":"1"}]}}`, true},
		{`{"version":1,"alter_configs":{"topic":"` + id + `","changes":[{"name":"cleanup.policy","op":"set","value":"forget"}]}}`, true},
		{`{"version":1,"delete_topic":{"name":"nosuch","id":"` + TopicID{}.String() + `"}}`, false},
		{`{"version":1,"delete_topic":{"name":3}}`, false},
		{`{"version":1}`, false},
		{`{`, false},
		{``, false},
	} {
		c := twoIncarnations(t, 3)
		before, applied := contents(c), c.LastApplied()
		err := c.Apply(100, []byte(test.command)).Err
		if errors.Is(err, ErrNewer) != test.newer || err == nil || contents(c) != before {
			t.Errorf("%s: %v", test.command, err)
		}
		if want := map[bool]Index{true: applied, false: 100}[test.newer]; c.LastApplied() != want {
			t.Errorf("%s: applied up to %d, want %d", test.command, c.LastApplied(), want)
		}
		// No leader proposes it.
		if err := c.View().CheckProposal([]byte(test.command)); err == nil && test.newer {
			t.Errorf("%s would be proposed", test.command)
		}
	}
	batch := newBatch(0, 1, 80, 1, 0)
	batch[magicAt] = 3
	for _, test := range []struct {
		data  []byte
		newer bool
	}{
		{[]byte{controlLast + 1}, true},
		{[]byte{0xff, 1, 2}, true},
		{append(LogStartCommand(0), 1), true},
		{batch, true},
		{append(newBatch(0, 1, 80, 1, 0), batch...), true},
		{LogStartCommand(0)[:8], false},
		{nil, false},
		{groupEntry([]byte("a")), false},
		{[]byte{0, 1, 2}, false},
	} {
		p := NewPartition()
		applied := p.Apply(Entry{Index: 5, Term: 1, Data: test.data})
		if errors.Is(applied.Err, ErrNewer) != test.newer || applied.Err == nil || p.NextOffset() != 0 || (p.LastApplied() == 0) != test.newer {
			t.Errorf("%x: %v, applied up to %d", test.data, applied.Err, p.LastApplied())
		}
	}
}

// Before all leaders look, names that nobody knows are proposed and are void; they stand in old
// logs.
func TestUnknownNamesInOldLogsAreVoid(t *testing.T) {
	c := twoIncarnations(t, 2)
	for i, command := range []CatalogCommand{
		{AlterConfigs: &AlterConfigs{Topic: TopicID{15: 2}, Changes: []ConfigChange{{"later.config", SetConfig, "1"}}}},
		{SetNodeState: &SetNodeState{ID: "n1", State: "resting"}},
	} {
		if err := c.Apply(Index(100+i), command.Encode()).Err; !errors.Is(err, outcome.ErrInvalidConfig) || c.LastApplied() != Index(100+i) {
			t.Errorf("%+v: %v", command, err)
		}
	}
}

// What a leader proposes while the level is being raised may come to stand behind the raise. It
// would end every node then, and again at each start.
func TestNothingIsProposedThatTheNextFeatureLevelTakesForANewerProgram(t *testing.T) {
	on := []NodeID{"n1"}
	hostile := &Topic{
		Name: "hostile", ID: TopicID{15: 9}, ReplicationFactor: 1, Partitions: []Partition{{Replicas: on, Bootstrap: on}},
		Configs: map[string]string{"later.config": "1"},
	}
	for _, command := range []CatalogCommand{
		{CreateTopic: &CreateTopic{Topic: *hostile}},
		{AlterConfigs: &AlterConfigs{Topic: TopicID{15: 2}, Changes: []ConfigChange{{"later.config", SetConfig, "1"}}}},
	} {
		c := twoIncarnations(t, 2)
		refused := c.View().CheckProposal(command.Encode())
		next := *c.view
		next.featureLevel = levelChecked
		c.view = &next
		if err := c.Apply(100, command.Encode()).Err; !errors.Is(err, ErrNewer) || !errors.Is(refused, outcome.ErrInvalidConfig) {
			t.Errorf("behind the raise it is %v, and before that a leader says %v", err, refused)
		}
	}
}

// A snapshot is of the version that the cluster's feature level says, and one of a later version is
// refused for that.
func TestSnapshotsAreOfTheClustersFeatureLevel(t *testing.T) {
	for level, want := range map[int]uint16{2: 2, 3: 3} {
		c := twoIncarnations(t, level)
		snapshot := c.Snapshot()
		payload, version, err := unseal(catalogMagic, catalogVersion, snapshot)
		if err != nil || version != want {
			t.Errorf("level %d: version %d, %v", level, version, err)
		}
		if has := bytes.Contains(payload, []byte(`"voters"`)); has != (level >= levelVoters) {
			t.Errorf("level %d: it says who forms groups: %v", level, has)
		}
	}
	c := twoIncarnations(t, 3)
	later := seal(catalogMagic, catalogVersion+1, func(b []byte) []byte { return append(b, "{}"...) })
	if _, err := RestoreCatalog(later); !errors.Is(err, ErrNewer) || !errors.Is(err, ErrSnapshot) {
		t.Errorf("a later version: %v", err)
	}
	higher := *c.view
	higher.featureLevel = FeatureLevel + 1
	if _, err := RestoreCatalog((&Catalog{applied: 99, view: &higher}).Snapshot()); !errors.Is(err, ErrNewer) {
		t.Errorf("a higher level: %v", err)
	}
	partition := seal(partitionMagic, partitionVersion+1, func(b []byte) []byte { return b })
	if _, err := RestorePartition(partition); !errors.Is(err, ErrNewer) {
		t.Errorf("a partition's: %v", err)
	}
	damaged := slices.Clone(later)
	damaged[8] ^= 1
	if _, err := RestoreCatalog(damaged); errors.Is(err, ErrNewer) {
		t.Errorf("damage is taken for a later version: %v", err)
	}
	if err := error(newer("x")); outcome.Code(err) != outcome.ErrFeatureLevel || !strings.Contains(err.Error(), "start that one") {
		t.Errorf("%v, %d", err, outcome.Code(err))
	}
}
