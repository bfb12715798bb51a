package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// openTransaction begins a transaction that has one record in partition 0 of a topic, and gives its
// producer and the record's offset.
func openTransaction(t *testing.T, c *harness.Cluster, id, topic string) (*kgo.Client, int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	producer, err := kgo.NewClient(kgo.SeedBrokers(c.Node(1).Addr()), kgo.TransactionalID(id), kgo.TransactionTimeout(5*time.Minute),
		kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	record := kgo.StringRecord("in a transaction")
	if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return producer, record.Offset
}

// Transactions on the command line: what is open is listed and described, and aborted by its id or
// in its partition.
func TestTransactionCommands(t *testing.T) {
	c := harness.Shared(t)
	bin := program(t, "trimaran")
	shell := cli(c)
	topic, id := harness.Topic("transacted"), harness.Topic("payer")
	shell.ok(t, bin, "topic", "create", topic, "--partitions", "2", "--replication-factor", "3")
	known(t, c, topic, 2)
	producer, _ := openTransaction(t, c, id, topic)
	contains(t, "transaction list", shell.ok(t, bin, "transaction", "list"), "TRANSACTIONAL ID", id, "Ongoing")
	type listed struct {
		ID    string `json:"transactional_id"`
		State string `json:"state"`
	}
	list := func(args ...string) (all []listed) {
		t.Helper()
		if err := json.Unmarshal([]byte(shell.ok(t, bin, append([]string{"transaction", "list", "--json"}, args...)...)), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := list("--longer-than", "1h"); len(all) > 0 {
		t.Errorf("open for more than an hour: %+v", all)
	}
	type described struct {
		State      string             `json:"state"`
		TimeoutMs  int                `json:"timeout_ms"`
		Partitions map[string][]int32 `json:"partitions"`
	}
	describe := func() (d described) {
		t.Helper()
		if err := json.Unmarshal([]byte(shell.ok(t, bin, "transaction", "describe", id, "--json")), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := describe(); d.State != "Ongoing" || d.TimeoutMs != 300_000 || len(d.Partitions[topic]) != 1 {
		t.Errorf("%+v", d)
	}
	contains(t, "transaction describe", shell.ok(t, bin, "transaction", "describe", id), "Ongoing", "timeout 5m0s", topic)
	// It is open, and its coordinator knows it.
	if out := shell.ok(t, bin, "transaction", "find-hanging", "--topic", topic, "--older-than", "0s", "--json"); out != "[]\n" {
		t.Errorf("hanging: %s", out)
	}
	shell.ok(t, bin, "transaction", "abort", id)
	if err := harness.Eventually(time.Minute, func() bool {
		d := describe()
		return d.State == "CompleteAbort" || d.State == "Empty"
	}); err != nil {
		t.Fatalf("the transaction is not aborted: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := producer.EndTransaction(ctx, kgo.TryCommit); !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("the producer that was fenced commits: %v", err)
	}
	// Another one, aborted in its partition.
	_, offset := openTransaction(t, c, id+"-2", topic)
	at := []string{"transaction", "abort", "--topic", topic, "--partition", "0", "--start-offset"}
	if r := shell.run(t, bin, append(at, "100000")...); r.code == 0 {
		t.Error("what begins nowhere is aborted")
	}
	shell.ok(t, bin, append(at, fmt.Sprint(offset))...)
	if r := shell.run(t, bin, append(at, fmt.Sprint(offset))...); r.code == 0 {
		t.Error("it is aborted twice")
	}
	for _, args := range [][]string{{"describe", "nobody"}, {"abort", "nobody"}, {"abort"}, {"abort", "a", "--topic", "b"}, {"list", "--state", "Nonsense"}, {"find-hanging", "--topic", "no-such-topic"}} {
		if r := shell.run(t, bin, append([]string{"transaction"}, args...)...); r.code == 0 || r.err == "" {
			t.Errorf("transaction %q: code %d, %s", args, r.code, r.err)
		}
	}
}
