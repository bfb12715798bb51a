package commands

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// restoredFromTier is what 'backup restore --from-tier --json' says.
type restoredFromTier struct {
	Topics   int
	FromTier struct {
		Reach []struct {
			Topic      string
			Partition  int
			Start, End int64
			Tier       int64 `json:"tier_from"`
			Known      int64 `json:"known_end"`
			Unlisted   bool
		}
		Back []string `json:"groups_put_back"`
	} `json:"from_tier"`
}

// links gives, for each partition of a topic and each offset of a record in front of an end, the
// hash over all records up to that one: offset, leader epoch, producer, time, key and value.
func links(t *testing.T, c *harness.Cluster, topic string, ends map[int32]int64) map[int32]map[int64]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	begin := map[int32]kgo.Offset{}
	for p := range ends {
		begin[p] = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: begin}))
	harness.Need(t, err)
	defer cl.Close()
	all, sums, left := map[int32]map[int64]string{}, map[int32][]byte{}, len(ends)
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		harness.Need(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= ends[r.Partition] {
				return
			}
			sum := sha256.Sum256(fmt.Appendf(sums[r.Partition], "%d %d %d %d %d %s %s", r.Offset, r.LeaderEpoch, r.ProducerID, r.ProducerEpoch, r.Timestamp.UnixMilli(), r.Key, r.Value))
			sums[r.Partition] = sum[:]
			if all[r.Partition] == nil {
				all[r.Partition] = map[int64]string{}
			}
			all[r.Partition][r.Offset] = hex.EncodeToString(sum[:])
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
		})
	}
	return all
}

// appendMore appends records to the three partitions of a topic.
func appendMore(t *testing.T, c *harness.Cluster, topic string, records int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(50_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	harness.Need(t, err)
	defer cl.Close()
	for i := range records {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(i % 3), Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat("v", 1000))}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	harness.Need(t, cl.Flush(ctx))
}

// compactedWithTier makes a topic that is compacted and has a tier, and gives the offset of each
// key's newest record.
func compactedWithTier(t *testing.T, c *harness.Cluster, topic string) map[string]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(20_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	harness.Need(t, err)
	defer cl.Close()
	text := func(s string) *string { return &s }
	made, err := kadm.NewClient(cl).CreateTopics(ctx, 1, 3, map[string]*string{
		"cleanup.policy": text("compact"), "min.cleanable.dirty.ratio": text("0.01"), "max.compaction.lag.ms": text("1000"),
		"remote.storage.enable": text("true"), "local.retention.bytes": text("100000"), "segment.bytes": text("100000"),
	}, topic)
	harness.Need(t, err)
	harness.Need(t, made[topic].Err)
	newest := map[string]int64{}
	for round := range 10 {
		var records []*kgo.Record
		for i := range 20 * (10 - round) / 10 { // some keys are never written again
			records = append(records, &kgo.Record{Key: fmt.Append(nil, "key-", round, "-", i), Value: []byte("x")})
		}
		for i := range 200 {
			records = append(records, &kgo.Record{Key: fmt.Append(nil, "key-", i%150), Value: []byte(strings.Repeat("x", 500))})
		}
		for _, r := range cl.ProduceSync(ctx, records...) {
			harness.Need(t, r.Err)
			newest[string(r.Record.Key)] = r.Record.Offset
		}
	}
	return newest
}

// objectsOf gives the files of a folder, with their sizes and times.
func objectsOf(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	harness.Need(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was deleted meanwhile
		}
		if err == nil {
			fmt.Fprintln(&all, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	}))
	return all.String()
}

// Every node of a cluster is lost with its disk. What is left is the store of its tier and a backup
// that was made before most records were written, and one without records that was made later. All
// that the tier has is there again, by a command that is killed in the middle and begun again, and
// it is said what is missing. Nothing is changed in the store. A damaged object is refused.
func TestALostClusterComesBackFromItsTier(t *testing.T) {
	tierDir := t.TempDir()
	store, place := "file://"+tierDir, "file://"+t.TempDir()
	args := []string{"--tier-cache-bytes", "16MiB", "--log-segment-bytes", "262144", "--log-retention-check-interval", "1s"}
	source := harness.New(t, harness.Options{NoShim: true, NodeArgs: append([]string{"--tier-to", store}, args...)})
	bin := program(t, "trimaran")
	from := cli(source)
	from.env = append(from.env, "TRIMARAN_BROKERS="+strings.Join(source.Addrs(), ","))
	loaded(t, source, 900)
	from.ok(t, bin, "backup", "create", "--to", place)
	from.ok(t, bin, "topic", "alter", "big", "--config", "remote.storage.enable=true", "--config", "local.retention.bytes=262144", "--config", "retention.ms=-1")
	appendMore(t, source, "big", 9_000)
	newest := compactedWithTier(t, source, "state")
	if err := harness.Eventually(2*time.Minute, func() bool {
		_, waiting, local, partitions := tierOfTopic(t, from, bin, "big")
		_, _, _, compacted := tierOfTopic(t, from, bin, "state")
		return partitions == 3 && compacted == 1 && waiting == 0 && local > 1500
	}); err != nil {
		t.Fatal(from.ok(t, bin, "cluster", "status"))
	}
	// A group is at the very end of a partition, which is in no tier.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(source.Addrs()...))
	harness.Need(t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "big", Partition: 1, At: 3300, LeaderEpoch: -1})
	_, err = adm.CommitOffsets(ctx, "ahead", offsets)
	harness.Need(t, err)
	var catalog struct {
		ID              string
		Uploaded, Bytes int64
	}
	harness.Need(t, json.Unmarshal([]byte(from.ok(t, bin, "backup", "create", "--to", place, "--catalog-only", "--json")), &catalog))
	if catalog.Uploaded != 0 || catalog.Bytes < 900_000 {
		t.Errorf("a backup without records: %+v", catalog)
	}
	ends := map[int32]int64{0: 3300, 1: 3300, 2: 3300}
	want := links(t, source, "big", ends)

	// While it runs, another cluster takes what is in its tier, and neither is harmed.
	target := harness.New(t, harness.Options{NoShim: true, NodeArgs: append([]string{"--auto-create-topics=false", "--tier-to", "file://" + t.TempDir()}, args...)})
	to := cli(target)
	to.env = append(to.env, "TRIMARAN_BROKERS="+strings.Join(target.Addrs(), ","))
	restore := []string{"backup", "restore", "--from", place, "--from-tier", store}
	// Its own cluster goes on with what is compacted, and comes to an end with that.
	before, since := "", time.Now()
	harness.Need(t, harness.Eventually(2*time.Minute, func() bool {
		if now := objectsOf(t, tierDir); now != before {
			before, since = now, time.Now()
		}
		return time.Since(since) > 5*time.Second && strings.Count(before, "tier.json") == 1
	}))
	to.ok(t, bin, append(restore, "--topic", "big=while-it-runs")...)
	if after := objectsOf(t, tierDir); after != before {
		t.Errorf("the tier had\n%s\nand has\n%s", before, after)
	}
	to.ok(t, bin, "topic", "delete", "while-it-runs")
	for _, n := range source.Nodes {
		harness.Need(t, n.Kill9())
		harness.Need(t, os.RemoveAll(n.Data))
	}

	refused := to.run(t, bin, "backup", "restore", "--from", place)
	if refused.code == 0 {
		t.Error("a backup without records is restored without a tier")
	}
	contains(t, "without a tier", refused.err, "--from-tier")
	// A piece is damaged, then it is as it was.
	pieces, err := filepath.Glob(filepath.Join(tierDir, "tiers", "*", "*", "*.batches"))
	harness.Need(t, err)
	damaged := pieces[len(pieces)/2]
	text, err := os.ReadFile(damaged)
	harness.Need(t, err)
	text[len(text)/2] ^= 1
	harness.Need(t, os.WriteFile(damaged, text, 0o600))
	refused = to.run(t, bin, restore...)
	if refused.code == 0 {
		t.Error("a damaged object is restored")
	}
	contains(t, "a damaged object", refused.err, filepath.Base(damaged))
	text[len(text)/2] ^= 1
	harness.Need(t, os.WriteFile(damaged, text, 0o600))

	// The command is killed when something is there, and begun again.
	first := exec.Command(bin, append(restore, "--parallel", "1")...)
	first.Env = append(os.Environ(), to.env...)
	harness.Need(t, first.Start())
	_ = harness.Eventually(30*time.Second, func() bool {
		at, err := harness.EndOffset(t.Context(), target.Node(1).Addr(), "big", 0, -1)
		return err == nil && at > 0
	})
	_ = first.Process.Kill()
	_ = first.Wait()
	var done restoredFromTier
	harness.Need(t, json.Unmarshal([]byte(to.ok(t, bin, append(restore, "--json")...)), &done))
	contains(t, "compare", to.ok(t, bin, "backup", "compare", "--from", place, "--from-tier", store), "is what the cluster has")
	reached, stateEnd := map[int32]int64{}, int64(0)
	for _, r := range done.FromTier.Reach {
		switch r.Topic {
		case "big":
			reached[int32(r.Partition)] = r.End
			if r.Start != 0 || r.End < 1500 || r.End >= 3300 || r.Known < 3300 || r.Tier < 300 || r.Unlisted {
				t.Errorf("%+v", r)
			}
		case "state":
			if stateEnd = r.End; r.Tier != 0 || r.End < 500 {
				t.Errorf("%+v", r)
			}
		}
	}
	if len(done.FromTier.Back) != 1 || !strings.Contains(done.FromTier.Back[0], "ahead") {
		t.Errorf("groups that are put back: %v", done.FromTier.Back)
	}
	for p, got := range links(t, target, "big", reached) {
		if last := reached[p] - 1; got[last] != want[p][last] {
			t.Errorf("partition %d, up to offset %d: the records were others", p, last)
		}
	}
	wantGroups(t, target, reached)
	there, fetched := 0, latestOf(t, target, "state", stateEnd)
	for key, at := range newest {
		if at >= stateEnd {
			continue
		}
		if there++; fetched[key] != at {
			t.Errorf("%s is at offset %d, and was at %d", key, fetched[key], at)
		}
	}
	if there == 0 {
		t.Error("no key of the compacted topic is in the tier")
	}
	// Records go on behind what is there, and to the new cluster's own tier.
	appendMore(t, target, "big", 3_000)
	if err := harness.Eventually(time.Minute, func() bool {
		_, waiting, local, partitions := tierOfTopic(t, to, bin, "big")
		return partitions == 3 && waiting == 0 && local > 1500
	}); err != nil {
		t.Error("what is restored does not go to the tier")
	}
	if after := objectsOf(t, tierDir); strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("the tier had\n%s\nand has\n%s", before, after)
	}
	to.ok(t, bin, "cluster", "verify", "big")
}

// wantGroups holds that a group is where it was, and the one that was ahead at the end.
func wantGroups(t *testing.T, c *harness.Cluster, ends map[int32]int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	harness.Need(t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	readers, err := adm.FetchOffsets(t.Context(), "readers")
	harness.Need(t, err)
	for p := range int32(3) {
		if o, ok := readers.Lookup("big", p); !ok || o.At != int64(100*(p+1)) || o.Metadata != "m" {
			t.Errorf("readers: %+v", o)
		}
	}
	ahead, err := adm.FetchOffsets(t.Context(), "ahead")
	harness.Need(t, err)
	if o, _ := ahead.Lookup("big", 1); o.At != ends[1] {
		t.Errorf("the group that was ahead is at %d, the log ends at %d", o.At, ends[1])
	}
}

// latestOf gives the offset of each key's newest record in the partition of a topic.
func latestOf(t *testing.T, c *harness.Cluster, topic string, end int64) map[string]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	harness.Need(t, err)
	defer cl.Close()
	// One more record, so that it is known when the end is reached.
	marked, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic(topic))
	harness.Need(t, err)
	defer marked.Close()
	harness.Need(t, marked.ProduceSync(ctx, &kgo.Record{Key: []byte("the end"), Value: []byte("v")}).FirstErr())
	found := map[string]int64{}
	for found["the end"] == 0 {
		fetches := cl.PollFetches(ctx)
		harness.Need(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) { found[string(r.Key)] = r.Offset })
	}
	if found["the end"] != end {
		t.Errorf("the log of %s went on at offset %d, want %d", topic, found["the end"], end)
	}
	return found
}
