package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A transaction that hangs, in a cluster that lets that happen, is said in the log by the node that
// leads the partition, found by `trimaran transaction find-hanging`, and ended by what the operator
// is told to do: then readers of committed records go on. One that its coordinator knows is not
// taken for it, however old.
func TestAHangingTransactionIsFoundAndEnded(t *testing.T) {
	t.Parallel()
	hanging, err := harness.HangingProgram(t.TempDir())
	must(t, err)
	program, err := harness.Program("trimaran")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := harness.New(t, harness.Options{Program: hanging, NoShim: true,
		NodeArgs: []string{"--transaction-max-timeout-ms", "1000", "--log-retention-check-interval", "200ms"}})
	create(t, c, "held", 2)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.TransactionalID("lost"), kgo.TransactionTimeout(time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(t, err)
	defer cl.Close()
	must(t, cl.BeginTransaction())
	open := &kgo.Record{Topic: "held", Partition: 1, Value: []byte("hangs")}
	must(t, cl.ProduceSync(ctx, open).FirstErr())
	plain, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"held": {1: kgo.NewOffset().AtStart()}}))
	must(t, err)
	defer plain.Close()
	behind := &kgo.Record{Topic: "held", Partition: 1, Value: []byte("behind")}
	must(t, plain.ProduceSync(ctx, behind).FirstErr())

	producer, _, err := cl.ProducerID(ctx)
	must(t, err)
	says := regexp.MustCompile(fmt.Sprintf(`it may be hanging" self=n\d topic=held partition=1 producer_id=%d `, producer))
	if err := harness.Eventually(patience, func() bool { return says.MatchString(logs(t, c)) }); err != nil {
		t.Errorf("no node says %v", says)
	}
	command := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, program, append(append([]string{"transaction"}, args...), "--brokers", c.Node(1).Addr())...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	find := func(age string) (found []struct {
		Topic       string `json:"topic"`
		Partition   int32  `json:"partition"`
		StartOffset int64  `json:"start_offset"`
	}) {
		t.Helper()
		out, err := command("find-hanging", "--older-than", age, "--json")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(t, json.Unmarshal([]byte(out), &found))
		return found
	}
	if found := find("1h"); len(found) != 0 {
		t.Errorf("an hour old: %+v", found)
	}
	found := find("0s")
	if len(found) != 1 || found[0].Topic != "held" || found[0].Partition != 1 || found[0].StartOffset != open.Offset {
		t.Fatalf("found: %+v", found)
	}
	// Its timeout does not end it, since nobody knows of it; nor does its id.
	out, err := command("abort", "lost")
	if again := find("0s"); len(again) != 1 {
		t.Errorf("'transaction abort lost' ended it (%v: %s): it did not hang", err, out)
	}
	poll, done := context.WithTimeout(ctx, time.Second)
	if n := plain.PollFetches(poll).NumRecords(); n != 0 {
		t.Errorf("%d records are read that are not committed, or behind what is open", n)
	}
	done()
	if out, err := command("abort", "--topic", "held", "--partition", "1", "--start-offset", fmt.Sprint(open.Offset)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if found := find("0s"); len(found) != 0 {
		t.Errorf("it hangs still: %+v", found)
	}
	var got []string
	for len(got) == 0 && ctx.Err() == nil {
		plain.PollFetches(ctx).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if len(got) != 1 || got[0] != "behind" {
		t.Errorf("read: %q", got)
	}
}

// logs gives what all nodes have logged.
func logs(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	var all strings.Builder
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.Log)
		must(t, err)
		all.Write(b)
	}
	return all.String()
}
