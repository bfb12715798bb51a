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
// all that it had, groups' offsets and transactions too; two new nodes take the places of the lost
// ones.
func TestRecoverFromOneOfThree(t *testing.T) {
	c := harness.New(t, harness.Options{Nodes: 3, NoShim: true})
	bin := program(t, "trimaran")
	shell := command{env: []string{"TRIMARAN_BROKERS=" + c.Node(1).Addr()}}
	shell.ok(t, bin, "topic", "create", "events", "--partitions", "3", "--replication-factor", "3")
	shell.ok(t, bin, "topic", "create", "bills", "--partitions", "1", "--replication-factor", "3")
	var lines strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&lines, "key%d:event %d\n", i, i)
	}
	writer := shell
	writer.stdin = lines.String()
	writer.ok(t, bin, "produce", "events", "--key-separator", ":")
	shell.ok(t, bin, "consume", "events", "--group", "readers", "--max-messages", "1000")
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
	if len(records) != 3000 {
		t.Fatalf("%d records were read", len(records))
	}
	// Nothing is in flight: the first node has all of it.
	level := func(nodes ...string) error {
		var last error
		err := harness.Eventually(2*time.Minute, func() bool {
			last = sameEverywhere(c.Node(1), nodes)
			return last == nil
		})
		if err != nil {
			return last
		}
		return nil
	}
	if err := level("n1", "n2", "n3"); err != nil {
		t.Fatal(err)
	}

	recovery := func(args ...string) result {
		return shell.run(t, bin, append([]string{"recover", "--data", c.Node(1).Data}, args...)...)
	}
	refused := func(r result, why string) {
		t.Helper()
		if r.code != 1 || !strings.Contains(r.err, why) {
			t.Errorf("exit code %d, want 1 and %q: %s%s", r.code, why, r.out, r.err)
		}
	}
	for _, i := range []int{2, 3} {
		if err := c.Node(i).Kill9(); err != nil {
			t.Fatal(err)
		}
	}
	refused(recovery("--lost", "n2,n3", "--apply"), "in use by another process")
	if err := c.Node(1).Kill9(); err != nil {
		t.Fatal(err)
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
	if ends != 3000 || len(plan.Groups) != 1+3+1+16 {
		t.Errorf("of the 3000 records of events those behind %d may be missing: %+v", ends, plan)
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
	contains(t, "transaction list", shell.ok(t, bin, "transaction", "list"), "biller", "CompleteCommit", "cut off")
	again, _ := openTransaction(t, c, "cut off", "bills") // aborts what was open
	if err := again.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Error(err)
	}
	writer.stdin = "key:event 3000\n"
	writer.ok(t, bin, "produce", "events", "--key-separator", ":")
	records = read(c.Node(1))
	if len(records) != 3001 {
		t.Errorf("%d records are there after another one", len(records))
	}

	for range 2 {
		n, err := c.AddNode()
		if err == nil {
			err = n.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := level("n1", "n4", "n5"); err != nil {
		t.Fatalf("the places of the lost nodes are not taken: %v", err)
	}
	for _, topic := range []string{"events", "bills"} {
		contains(t, "cluster verify", shell.ok(t, bin, "cluster", "verify", topic), "n1", "n4", "n5")
	}
	// It is a cluster of three again: any may go.
	if err := c.Node(1).Kill9(); err != nil {
		t.Fatal(err)
	}
	if got := read(c.Node(4)); !slices.Equal(got, records) {
		t.Errorf("without the survivor %d records are there, and were %d", len(got), len(records))
	}
}

// sameEverywhere gives an error unless a cluster is of these nodes, each holds everything, and none
// lacks anything.
func sameEverywhere(at *harness.Node, nodes []string) error {
	s, err := at.Status()
	if err != nil {
		return err
	}
	var are []string
	for _, n := range s.Nodes {
		are = append(are, n.ID)
	}
	slices.Sort(are)
	if !slices.Equal(are, nodes) || len(s.CatalogVoters) != len(nodes) || !s.Confirmed {
		return fmt.Errorf("the nodes are %q, %d vote", are, len(s.CatalogVoters))
	}
	all := slices.Clone(s.GroupShards)
	for _, topic := range s.Topics {
		all = append(all, topic.Partitions...)
	}
	for _, p := range all {
		var holders []string
		for _, r := range p.Replicas {
			holders = append(holders, r.Node)
			if r.Leaving || r.Lag != 0 || r.Role != "leader" && r.Role != "follower" {
				return fmt.Errorf("partition %d: %+v", p.Partition, r)
			}
		}
		slices.Sort(holders)
		if !slices.Equal(holders, nodes) || p.Leader == "" {
			return fmt.Errorf("partition %d is on %q, led by %q", p.Partition, holders, p.Leader)
		}
	}
	return nil
}
