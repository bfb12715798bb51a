package commands

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What is left of a compacted topic is backed up, more of it later, and restored: a reader has the
// last value of each key, though the topic is compacted on both sides all the while.
func TestBackupOfACompactedTopic(t *testing.T) {
	bin, place := program(t, "trimaran"), "file://"+t.TempDir()
	args := []string{"--log-retention-check-interval", "500ms"}
	source := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: args})
	from := cli(source)
	from.env = append(from.env, "TRIMARAN_BROKERS="+strings.Join(source.Addrs(), ","))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(source.Addrs()...), kgo.DefaultProduceTopic("changes"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	harness.Need(t, err)
	defer cl.Close()
	text := func(s string) *string { return &s }
	made, err := kadm.NewClient(cl).CreateTopics(ctx, 1, 1, map[string]*string{
		"cleanup.policy": text("compact"), "segment.bytes": text("200000"), "min.cleanable.dirty.ratio": text("0.01"), "max.compaction.lag.ms": text("1000"),
	}, "changes")
	harness.Need(t, err)
	harness.Need(t, made["changes"].Err)
	want, written := map[string]string{}, 0
	write := func(n int) {
		t.Helper()
		var records []*kgo.Record
		for range n {
			key, value := fmt.Sprint("key-", written%100), fmt.Sprintf("%d %s", written, strings.Repeat("x", 500))
			records = append(records, &kgo.Record{Key: []byte(key), Value: []byte(value)})
			want[key] = value
			written++
		}
		harness.Need(t, cl.ProduceSync(ctx, records...).FirstErr())
	}
	write(3000)
	harness.Need(t, harness.Eventually(time.Minute, func() bool {
		m, err := source.Metrics("trimaran_compaction_saved_bytes")
		return err == nil && m["trimaran_compaction_saved_bytes"] > 1_000_000
	}))
	from.ok(t, bin, "backup", "create", "--to", place)
	write(250)
	from.ok(t, bin, "backup", "create", "--to", place)
	from.ok(t, bin, "backup", "verify", "--from", place, "--all")
	harness.Need(t, source.Node(1).Kill9())

	target := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: args})
	to := cli(target)
	to.env = append(to.env, "TRIMARAN_BROKERS="+strings.Join(target.Addrs(), ","))
	to.ok(t, bin, "backup", "restore", "--from", place)
	contains(t, "compare", to.ok(t, bin, "backup", "compare", "--from", place), "is what the cluster has")
	reader, err := kgo.NewClient(kgo.SeedBrokers(target.Addrs()...), kgo.ConsumeTopics("changes"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	harness.Need(t, err)
	defer reader.Close()
	got, records := map[string]string{}, 0
	for last := int64(-1); last < int64(written)-1; {
		fetches := reader.PollFetches(ctx)
		harness.Need(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			got[string(r.Key)], last = string(r.Value), r.Offset
			records++
		})
	}
	if records >= written {
		t.Errorf("%d of %d records are there: nothing was compacted", records, written)
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %.20q, want %.20q", key, got[key], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
}
