package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// TestMoreKeysThanMemory compacts a partition that has several times as many keys as there is
// memory for: it takes several passes, and then each key has its newest record and no other. With
// COMPACTION_KEYS (make compaction) it has so many, and 64 MiB for them.
func TestMoreKeysThanMemory(t *testing.T) {
	t.Parallel()
	keys, memory, took := 150_000, "1MiB", 5*time.Minute
	if text := os.Getenv("COMPACTION_KEYS"); text != "" {
		var err error
		keys, err = strconv.Atoi(text)
		must(t, err)
		memory, took = "64MiB", time.Hour
	}
	c, err := harness.Start(harness.Options{Nodes: 1, NoShim: true,
		NodeArgs: []string{"--log-retention-check-interval", "500ms", "--compaction-memory", memory, "--compaction-rate", "0"}})
	must(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), took)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("keys"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	must(t, err)
	defer cl.Close()
	text := func(s string) *string { return &s }
	admin := kadm.NewClient(cl)
	made, err := admin.CreateTopics(ctx, 1, 1, map[string]*string{
		"cleanup.policy": text("compact"), "segment.bytes": text("16777216"), "min.compaction.lag.ms": text("86400000"),
	}, "keys")
	must(t, err)
	must(t, made["keys"].Err)

	// Each key, and then every tenth again, from the last to the first.
	written := 0
	write := func(key, round int) {
		written++
		cl.Produce(ctx, &kgo.Record{Key: strconv.AppendInt(nil, int64(key), 10), Value: strconv.AppendInt(nil, int64(round), 10)}, func(_ *kgo.Record, err error) {
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	for key := range keys {
		write(key, 1)
	}
	for key := keys - keys%10; key >= 0; key -= 10 {
		if key < keys {
			write(key, 2)
		}
	}
	must(t, cl.Flush(ctx))
	began := time.Now()
	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "min.compaction.lag.ms", Value: text("0")},
		{Op: kadm.SetConfig, Name: "max.compaction.lag.ms", Value: text("1")},
	}, "keys")
	must(t, errors.Join(err, altered[0].Err))
	must(t, harness.Eventually(took, func() bool {
		m, err := c.Metrics("trimaran_compaction_rounds_total", "trimaran_compactions_waiting_count")
		return err == nil && m["trimaran_compaction_rounds_total"] >= 1 && m["trimaran_compactions_waiting_count"] == 0
	}))
	compacted := time.Since(began)

	reader, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"keys": {0: kgo.NewOffset().AtStart()}}))
	must(t, err)
	defer reader.Close()
	seen, records := make([]byte, keys), 0
	for last := int64(-1); last < int64(written)-1; {
		fetches := reader.PollFetches(ctx)
		must(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			key, err := strconv.Atoi(string(r.Key))
			if err != nil || key < 0 || key >= keys || r.Offset <= last || seen[key] != 0 {
				t.Fatalf("offset %d behind %d: key %q, value %q", r.Offset, last, r.Key, r.Value)
			}
			last, seen[key] = r.Offset, r.Value[0]
			records++
		})
	}
	for key, round := range seen {
		want := byte('1')
		if key%10 == 0 {
			want = '2'
		}
		if round != want {
			t.Fatalf("key %d has the value %q, want %q", key, round, want)
		}
	}
	if records != keys {
		t.Errorf("%d records of %d keys are left", records, keys)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Node(1).Pid()))
	must(t, err)
	_, peak, _ := strings.Cut(string(status), "VmHWM:") // where there is such a line, on Linux
	peak, _, _ = strings.Cut(peak, "\n")
	t.Logf("%d keys of %d records in %s: compacted in %v; the most memory that the node had: %s", keys, written, memory, compacted.Round(time.Millisecond), strings.TrimSpace(peak))
}
