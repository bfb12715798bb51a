package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// compactionFor is how long nodes are killed, COMPACTION_FOR (make compaction); without it the test
// is a short one.
func compactionFor(t *testing.T) (long time.Duration) {
	if text := os.Getenv("COMPACTION_FOR"); text != "" {
		var err error
		long, err = time.ParseDuration(text)
		must(t, err)
	}
	return long
}

// TestCompactionWhileNodesDie compacts a topic on real nodes that are killed again and again, one
// of them with its replica lost: in the end a reader's map is the writer's, the replicas are the
// same, and little more than a record of each key is left. In a long run that is so every few
// kills, and another replica is lost each time.
func TestCompactionWhileNodesDie(t *testing.T) {
	t.Parallel()
	long := compactionFor(t)
	c, err := harness.Start(harness.Options{NoShim: true, NodeArgs: []string{"--log-retention-check-interval", "500ms", "--catch-up-rate", "8MiB"}})
	must(t, err)
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.DefaultProduceTopic("changes"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), long+10*time.Minute)
	defer cancel()
	text := func(s string) *string { return &s }
	made, err := kadm.NewClient(cl).CreateTopics(ctx, 1, 3, map[string]*string{
		"cleanup.policy": text("compact"), "segment.bytes": text("200000"), "min.cleanable.dirty.ratio": text("0.3"),
		"max.compaction.lag.ms": text("3000"), "delete.retention.ms": text("2000"),
	}, "changes")
	must(t, err)
	must(t, made["changes"].Err)

	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	const keys = 300
	want := map[string]string{} // "": a tombstone
	written := 0
	write := func(n int) {
		t.Helper()
		for range n {
			r := &kgo.Record{Key: fmt.Append(nil, "key-", random.IntN(keys))}
			if random.IntN(8) > 0 {
				r.Value = fmt.Appendf(nil, "%d %s", written, strings.Repeat("x", random.IntN(700)))
			}
			// One after the other: else what is sent again would be behind what was sent later.
			must(t, cl.ProduceSync(ctx, r).FirstErr())
			want[string(r.Key)] = string(r.Value)
			written++
		}
	}
	kills, lost := 0, 0
	for began := time.Now(); ; {
		for range 4 {
			write(400)
			n := c.Node(1 + (kills % 3))
			must(t, n.Kill9())
			kills++
			write(400)
			if kills%4 == 2 {
				lost += loseReplica(t, n)
			}
			must(t, n.Start())
			must(t, n.WaitReady(patience))
			allVote(t, c, "changes") // or the next kill leaves no majority
		}
		// The last record is none that goes, so that a reader knows when it is there.
		must(t, cl.ProduceSync(ctx, &kgo.Record{Key: []byte("the end"), Value: fmt.Append(nil, kills)}).FirstErr())
		want["the end"] = fmt.Sprint(kills)
		written++
		left := compactedTo(t, ctx, c, want, written, keys)
		out := trimaran(t, c.Addrs(), "cluster", "verify", "changes")
		if !strings.Contains(out, "same") {
			t.Fatalf("after %d kills cluster verify says %s", kills, out)
		}
		if time.Since(began) >= long {
			t.Logf("%d kills, %d replicas lost; of %d records %d are left\n%s", kills, lost, written, left, out)
			return
		}
	}
}

// loseReplica removes the node's replica of the partition, and gives how many that were: none
// where it has no more than one segment.
func loseReplica(t *testing.T, n *harness.Node) (lost int) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.Data, "partitions", "*-0"))
	must(t, err)
	for _, dir := range dirs {
		if list, _ := filepath.Glob(filepath.Join(dir, "*.log")); len(list) > 1 {
			must(t, os.RemoveAll(dir))
			lost++
		}
	}
	return lost
}

// compactedTo waits until little more than a record of each key is left, and gives how many are.
// All the while what is read must have the last value of each: everything is compacted some time
// after the last record, though nothing is written any more.
func compactedTo(t *testing.T, ctx context.Context, c *harness.Cluster, want map[string]string, written, keys int) int {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); ; {
		got, records := compactedMap(t, ctx, c.Addrs(), written)
		wrong := ""
		for key, value := range want {
			if got[key] != value {
				wrong = fmt.Sprintf("key %q is %.40q, want %.40q", key, got[key], value)
			}
		}
		if wrong != "" || len(got) > len(want) {
			t.Fatalf("after %d records, of which %d are left: %s", written, records, wrong)
		}
		if records <= keys+5 {
			return records
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d records of %d keys are left\n%s", records, written, keys, c.Logs(20))
		}
		time.Sleep(time.Second) // another look: the nodes' own clocks decide when
	}
}

// compactedMap reads the topic from its beginning to its end, and gives the last value of each key
// and how many records there were.
func compactedMap(t *testing.T, ctx context.Context, addrs []string, end int) (last map[string]string, records int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"changes": {0: kgo.NewOffset().AtStart()}}), kgo.KeepControlRecords())
	must(t, err)
	defer cl.Close()
	last = map[string]string{}
	for at := int64(-1); at < int64(end)-1; {
		fetches := cl.PollFetches(ctx)
		must(t, fetches.Err())
		for _, r := range fetches.Records() {
			if r.Offset <= at {
				t.Fatalf("offset %d behind %d", r.Offset, at)
			}
			at = r.Offset
			records++
			last[string(r.Key)] = string(r.Value)
		}
	}
	return last, records
}
