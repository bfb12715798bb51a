package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// The drill of docs/operations.md: two of three nodes are gone with their data. The third serves
// all that it had, groups' offsets and transactions too, and a new node takes part of all. That two
// take the places of the lost ones is tested in package cluster, in virtual time.
func TestRecoverFromOneOfThree(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 3, NoShim: true, NodeArgs: []string{"--group-initial-rebalance-delay-ms", "0"}})
	bin := program(t, "trimaran")
	shell := command{env: []string{"TRIMARAN_BROKERS=" + c.Node(1).Addr()}}
	shell.ok(t, bin, "topic", "create", "events", "--partitions", "3", "--replication-factor", "3")
	shell.ok(t, bin, "topic", "create", "bills", "--partitions", "1", "--replication-factor", "3")
	const written = 300
	var lines strings.Builder
	for i := range written {
		fmt.Fprintf(&lines, "key%d:event %d\n", i, i)
	}
	writer := shell
	writer.stdin = lines.String()
	writer.ok(t, bin, "produce", "events", "--key-separator", ":")
	shell.ok(t, bin, "consume", "events", "--group", "readers", "--max-messages", "100")
	done, _ := openTransaction(t, c, "biller", "bills")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := done.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	openTransaction(t, c, "cut off", "bills")
	read := func(at *harness.Node) []string {
		t.Helper()
		out := command{env: []string{"TRIMARAN_BROKERS=" + at.Addr()}}.ok(t, bin, "consume", "events", "--format", `%p %o %v\n`)
		all := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		slices.Sort(all)
		return all
	}
	committed := func() string {
		t.Helper()
		var group struct {
			Offsets []struct{ Partition, Committed int64 } `json:"offsets"`
		}
		if err := json.Unmarshal([]byte(shell.ok(t, bin, "group", "describe", "readers", "--json")), &group); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(group.Offsets)
	}
	records, offsets := read(c.Node(1)), committed()
	if len(records) != written {
		t.Fatalf("%d records were read", len(records))
	}
	// Nothing is in flight: the nodes have all of it.
	level := func(nodes ...string) {
		t.Helper()
		var last error
		if harness.Eventually(2*time.Minute, func() bool {
			last = allHave(c.Node(1), nodes)
			return last == nil
		}) != nil {
			t.Fatal(last)
		}
	}
	level("n1", "n2", "n3")

	recovery := func(args ...string) result {
		return shell.run(t, bin, append([]string{"recover", "--data", c.Node(1).Data}, args...)...)
	}
	refused := func(r result, why string) {
		t.Helper()
		if r.code != 1 || !strings.Contains(r.err, why) {
			t.Errorf("exit code %d, want 1 and %q: %s%s", r.code, why, r.out, r.err)
		}
	}
	refused(recovery("--lost", "n2,n3", "--apply"), "in use by another process")
	if err := c.Node(1).Kill9(); err != nil {
		t.Fatal(err)
	}
	refused(recovery("--lost", "n2,n3", "--apply"), "somebody listens at")
	for _, i := range []int{2, 3} {
		if err := c.Node(i).Kill9(); err != nil {
			t.Fatal(err)
		}
	}
	survey := filepath.Join(t.TempDir(), "n2.json")
	if err := os.WriteFile(survey, []byte(shell.ok(t, bin, "recover", "survey", "--data", c.Node(2).Data)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(recovery("--lost", "n3", "--survey", survey, "--apply"), "every group has a majority")
	for _, i := range []int{2, 3} {
		if err := os.RemoveAll(c.Node(i).Data); err != nil {
			t.Fatal(err)
		}
	}
	refused(recovery("--lost", "n3", "--apply"), "node n2 is neither named as lost")
	refused(recovery("--lost", "n2,n3,n7", "--apply"), `no node is named "n7"`)
	before, err := os.ReadFile(filepath.Join(c.Node(1).Data, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	dry := recovery("--lost", "n2,n3")
	contains(t, "a dry run", dry.out, "MAY BE MISSING", "catalog", "events-2", "bills-0", "consumer groups-15", "nothing was changed")
	if after, err := os.ReadFile(filepath.Join(c.Node(1).Data, "node.json")); err != nil || string(after) != string(before) {
		t.Errorf("a dry run has changed node.json: %v", err)
	}
	var plan struct {
		Applied     bool   `json:"applied"`
		Copies      string `json:"copies"`
		RecoveredID string `json:"recovered_id"`
		Groups      []struct {
			Name        string `json:"name"`
			Topic       string `json:"topic"`
			Fate        string `json:"fate"`
			MissingFrom int64  `json:"missing_from"`
		} `json:"groups"`
	}
	if err := json.Unmarshal([]byte(shell.ok(t, bin, "recover", "--data", c.Node(1).Data, "--lost", "n2,n3", "--apply", "--json")), &plan); err != nil || !plan.Applied {
		t.Fatalf("%+v, %v", plan, err)
	}
	ends := int64(0)
	for _, g := range plan.Groups {
		if g.Fate != "recovered" {
			t.Errorf("%+v", g)
		}
		if g.Topic == "events" {
			ends += g.MissingFrom
		}
	}
	if ends != written || len(plan.Groups) != 1+3+1+16 {
		t.Errorf("of the %d records of events those behind %d may be missing: %+v", written, ends, plan)
	}
	if copied, err := os.ReadFile(filepath.Join(plan.Copies, "node.json")); err != nil || string(copied) != string(before) {
		t.Errorf("the copy of node.json: %v", err)
	}
	contains(t, "once more", shell.ok(t, bin, "recover", "--data", c.Node(1).Data, "--lost", "n2,n3", "--apply"), "nothing to do", plan.RecoveredID)
	shell.ok(t, bin, "log", "verify", c.Node(1).Data)

	if err := c.Node(1).Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Node(1).WaitReady(time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := read(c.Node(1)); !slices.Equal(got, records) {
		t.Errorf("%d records are there, and were %d", len(got), len(records))
	}
	if got := committed(); got != offsets {
		t.Errorf("committed is %s, and was %s", got, offsets)
	}
	contains(t, "transaction list", shell.ok(t, bin, "transaction", "list"), "biller", "cut off")
	if err := harness.Eventually(time.Minute, func() bool {
		return strings.Contains(shell.ok(t, bin, "transaction", "list", "--state", "CompleteAbort"), "cut off")
	}); err != nil {
		t.Error("what was open is not aborted:", err)
	}
	again, _ := openTransaction(t, c, "cut off", "bills")
	if err := again.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Error(err)
	}
	if out := shell.ok(t, bin, "transaction", "find-hanging", "--older-than", "0s", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("transactions hang: %s", out)
	}
	writer.stdin = "key:one more event\n"
	writer.ok(t, bin, "produce", "events", "--key-separator", ":")
	records = read(c.Node(1))
	if len(records) != written+1 {
		t.Errorf("%d records are there after another one", len(records))
	}

	n, err := c.AddNode()
	if err == nil {
		err = n.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	level("n1", "n4")
	if got := read(c.Node(4)); !slices.Equal(got, records) {
		t.Errorf("through the new node %d records are there, and were %d", len(got), len(records))
	}
}

// allHave gives an error unless these nodes take part in everything and lack nothing.
func allHave(at *harness.Node, nodes []string) error {
	s, err := at.Status()
	if err != nil {
		return err
	}
	if len(s.CatalogVoters) != len(nodes) || !s.Confirmed {
		return fmt.Errorf("%d vote for the catalog's leader", len(s.CatalogVoters))
	}
	all := slices.Clone(s.GroupShards)
	for _, topic := range s.Topics {
		all = append(all, topic.Partitions...)
	}
	for _, p := range all {
		var have []string
		for _, r := range p.Replicas {
			if r.Lag == 0 && (r.Role == "leader" || r.Role == "follower") {
				have = append(have, r.Node)
			}
		}
		slices.Sort(have)
		if !slices.Equal(have, nodes) || p.Leader == "" {
			return fmt.Errorf("partition %d: %+v", p.Partition, p)
		}
	}
	return nil
}
