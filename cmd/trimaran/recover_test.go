package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/cluster/lostquorum"
	"github.com/trimaran-io/trimaran/fsm"
)

// What is not asked for as it should be is refused, and nothing is changed. The drill itself is in
// test/suites/commands, with real processes.
func TestRecoverRefuses(t *testing.T) {
	data, addr, stop := oneNode(t)
	command(t, 0, "one\n", "produce", "greetings", "--brokers", addr)
	refused := func(code int, want string, args ...string) {
		t.Helper()
		if _, text := command(t, code, "", append([]string{"recover"}, args...)...); !strings.Contains(text, want) {
			t.Errorf("recover %s: %q, want %q", strings.Join(args, " "), text, want)
		}
	}
	refused(1, "in use by another process", "--data", data, "--lost", "n2")
	refused(1, "in use by another process", "survey", "--data", data)
	stop()
	out, _ := command(t, 0, "", "recover", "survey", "--data", data)
	s, err := lostquorum.ReadSurvey(strings.NewReader(out))
	if err != nil || s.Catalog.Index == 0 || s.Catalog.Problem != "" || len(s.Topics) != 1 || len(s.Logs) != 1 || len(s.Nodes) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, log := range s.Logs {
		if log.Next != 1 || log.Problem != "" || log.Voted < log.Term || len(log.Servers) != 1 {
			t.Errorf("%s: %+v", name, log)
		}
	}
	other := filepath.Join(t.TempDir(), "survey.json")
	write := func(s *lostquorum.Survey) {
		b, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(other, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	refused(2, "--data is needed", "--lost", "n2")
	refused(2, "--lost is needed", "--data", data)
	refused(1, "no file node.json", "--data", filepath.Join(data, "nothing"), "--lost", "n2")
	refused(1, `no node is named "n2": the catalog has n1`, "--data", data, "--lost", "n2", "--apply")
	refused(1, " is named as lost, and there is a survey of it", "--data", data, "--lost", s.Identity, "--apply")
	refused(1, "no such file", "--data", data, "--lost", "n2", "--survey", other)
	if err := os.WriteFile(other, []byte("n1"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(1, "no survey", "--data", data, "--lost", "n2", "--survey", other)
	was := s.Catalog.Index
	s.Catalog.Index--
	write(s)
	refused(1, "is of this node, which has been started since", "--data", data, "--lost", "n2", "--survey", other)
	s.Catalog.Index = was
	s.Identity = "n2.00000002"
	write(s)
	refused(1, "there is a survey of it", "--data", data, "--lost", "n1", "--survey", other)
	s.ClusterID = "another"
	write(s)
	refused(1, "of cluster another", "--data", data, "--lost", "n1", "--survey", other)
	if there, err := filepath.Glob(filepath.Join(data, "*recovery*")); err != nil || len(there) > 0 {
		t.Errorf("something was begun: %q, %v", there, err)
	}
}

// TestWhatIsGoneIsSaid, and what can be done about it.
func TestWhatIsGoneIsSaid(t *testing.T) {
	plan := func(gone ...lostquorum.Group) string {
		p := &lostquorum.Plan{ClusterID: "c", Decided: []byte("{}"), Groups: []lostquorum.Group{{
			Name: "catalog", Fate: lostquorum.Recovered, Member: "n1.00000001", Index: 7, Term: 2,
		}}}
		p.Groups = append(p.Groups, gone...)
		var out strings.Builder
		if err := printPlan(&out, nil, p, false, false); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	topic := lostquorum.Group{Topic: "bills", Partition: 3, Fate: lostquorum.Gone, Held: []fsm.NodeID{"n2", "n3"}}
	shard := lostquorum.Group{Topic: fsm.GroupShardsName, Partition: 5, Fate: lostquorum.Gone, Held: []fsm.NodeID{"n4"}}
	const ofTopics, ofShards = "trimaran backup restore --from URL --topic TOPIC --new-ids", "Give them other names"
	for _, test := range []struct {
		got       string
		want, not []string
	}{
		{plan(), nil, []string{"gone stays", ofTopics, ofShards}},
		{plan(topic), []string{"bills-3 is gone: no survivor has anything of it, it was at n2,n3\n", "\nbills:\n", ofTopics}, []string{ofShards}},
		{plan(shard), []string{"consumer groups-5 is gone", "it was at n4\n", ofShards}, []string{ofTopics}},
		{plan(topic, shard, topic), []string{"\nbills:\n", ofTopics, ofShards, "3 are gone"}, nil},
	} {
		for _, want := range test.want {
			if !strings.Contains(test.got, want) {
				t.Errorf("%q is not in\n%s", want, test.got)
			}
		}
		for _, not := range test.not {
			if strings.Contains(test.got, not) {
				t.Errorf("%q is in\n%s", not, test.got)
			}
		}
	}
}
