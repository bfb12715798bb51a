package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tierOfTopic is what 'cluster status' says of a topic's tier: the most bytes that a replica has of
// a partition, the least local start, and what is still to go there.
func tierOfTopic(t *testing.T, shell command, bin, topic string) (largest, waiting int64, local int64, partitions int) {
	t.Helper()
	var status struct {
		Topics []struct {
			Name       string
			Partitions []struct {
				Replicas []struct{ Bytes int64 }
				Tier     *struct {
					Waiting    int64
					LocalStart int64 `json:"local_start"`
				}
			}
		}
	}
	r := shell.run(t, bin, "cluster", "status", "--json")
	if r.code != 0 || json.Unmarshal([]byte(r.out), &status) != nil {
		return 0, 0, 0, 0
	}
	local = 1 << 40
	for _, one := range status.Topics {
		if one.Name != topic {
			continue
		}
		for _, p := range one.Partitions {
			for _, replica := range p.Replicas {
				largest = max(largest, replica.Bytes)
			}
			if p.Tier != nil {
				partitions++
				waiting, local = waiting+p.Tier.Waiting, min(local, p.Tier.LocalStart)
			}
		}
	}
	return largest, waiting, local, partitions
}

// Old records go to a store that fails while a node is killed; replicas keep a tenth of them, and
// clients read the same as before. A backup has all of it. While the store is down clients write
// and read what is new.
func TestTier(t *testing.T) {
	s3 := newFaultyS3(t, 9)
	c := harness.New(t, harness.Options{
		NoShim: true, Env: []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"},
		NodeArgs: []string{"--tier-to", s3.store("tier"), "--tier-cache-bytes", "16MiB", "--log-segment-bytes", "262144", "--log-retention-check-interval", "1s"},
	})
	bin := program(t, "trimaran")
	shell := cli(c)
	shell.env = append(shell.env, "TRIMARAN_BROKERS="+strings.Join(c.Addrs(), ","))
	loaded(t, c, 9_000)
	want, committed := chains(t, c, kgo.ReadUncommitted()), chains(t, c, kgo.ReadCommitted())
	s3.faults.Store(true)
	defer s3.faults.Store(false)
	alter := []string{"topic", "alter", "big", "--config", "remote.storage.enable=true"}
	for _, config := range []string{"local.retention.bytes=262144", "retention.ms=-1"} {
		alter = append(alter, "--config", config)
	}
	shell.ok(t, bin, alter...)
	harness.Need(t, c.Node(2).Kill9())
	harness.Need(t, c.Node(2).Restart())
	if err := harness.Eventually(2*time.Minute, func() bool {
		largest, waiting, local, partitions := tierOfTopic(t, shell, bin, "big")
		return partitions == 3 && waiting == 0 && local > 1500 && largest < 1<<20
	}); err != nil {
		largest, waiting, local, partitions := tierOfTopic(t, shell, bin, "big")
		t.Fatalf("%d partitions have a tier, %d bytes wait, replicas have %d bytes, from %d on\n%s", partitions, waiting, largest, local, c.Logs(30))
	}
	contains(t, "cluster status", shell.ok(t, bin, "cluster", "status"), "IN THE TIER")
	if got := chains(t, c, kgo.ReadUncommitted()); !sameChains(got, want) {
		t.Errorf("it was\n%v\nand is\n%v", want, got)
	}
	if got := chains(t, c, kgo.ReadCommitted()); !sameChains(got, committed) {
		t.Errorf("what is committed was\n%v\nand is\n%v", committed, got)
	}
	shell.ok(t, bin, "cluster", "verify", "big")
	s3.faults.Store(false)
	wholeInBackup(t, c, shell, bin, want, committed)
	s3.down.Store(true)
	newest(t, c)
	s3.down.Store(false)
	metrics, err := c.Metrics("trimaran_tier_uploaded_bytes_total", "trimaran_tier_fetched_bytes_total", "trimaran_tier_segments_total")
	harness.Need(t, err)
	if metrics["trimaran_tier_uploaded_bytes_total"] < 6_000_000 || metrics["trimaran_tier_fetched_bytes_total"] < 6_000_000 {
		t.Errorf("%v", metrics)
	}
}

// wholeInBackup makes a backup of the topic with a tier and restores it under another name: it has
// what lies in the tier, and goes to the tier itself.
func wholeInBackup(t *testing.T, c *harness.Cluster, shell command, bin string, want, committed map[string]string) {
	t.Helper()
	place := "file://" + t.TempDir()
	var made struct{ Bytes int64 }
	harness.Need(t, json.Unmarshal([]byte(shell.ok(t, bin, "backup", "create", "--to", place, "--topic", "big", "--json")), &made))
	if made.Bytes < 9_000_000 {
		t.Errorf("the backup has %d bytes", made.Bytes)
	}
	shell.ok(t, bin, "backup", "verify", "--from", place)
	contains(t, "compare", shell.ok(t, bin, "backup", "compare", "--from", place), "is what the cluster has")
	shell.ok(t, bin, "backup", "restore", "--from", place, "--topic", "big=again", "--no-groups")
	if got := chainsOf(t, c, kgo.ReadUncommitted(), "again"); !sameChains(got, want) {
		t.Errorf("it was\n%v\nand is restored as\n%v", want, got)
	}
	if err := harness.Eventually(time.Minute, func() bool {
		_, waiting, local, partitions := tierOfTopic(t, shell, bin, "again")
		return partitions == 3 && waiting == 0 && local > 0
	}); err != nil {
		t.Error("what is restored does not go to the tier")
	}
	if got := chainsOf(t, c, kgo.ReadCommitted(), "again"); !sameChains(got, committed) {
		t.Errorf("what is committed was\n%v\nand is restored as\n%v", committed, got)
	}
}

// newest writes and reads at the end of a topic with a tier, one record after the other.
func newest(t *testing.T, c *harness.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumeTopics("big"), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchMaxWait(100*time.Millisecond))
	harness.Need(t, err)
	defer cl.Close()
	for range 5 { // until it knows where the ends are
		poll, stop := context.WithTimeout(ctx, 300*time.Millisecond)
		cl.PollFetches(poll)
		stop()
	}
	began := time.Now()
	for i := range 20 {
		value := fmt.Sprint("new ", i)
		harness.Need(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "big", Value: []byte(value)}).FirstErr())
		for found := false; !found; {
			cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { found = found || string(r.Value) == value })
			harness.Need(t, ctx.Err())
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("20 records took %v to be written and read while the store is down", took)
	}
}
