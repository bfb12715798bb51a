package commands

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// loaded is a cluster with a topic of some megabytes in three partitions, transactions in another
// one, and a group.
func loaded(t *testing.T, c *harness.Cluster, records int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	harness.Need(t, c.CreateTopic(ctx, "big", 3, 3))
	harness.Need(t, c.CreateTopic(ctx, "ledger", 1, 3))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(200_000))
	harness.Need(t, err)
	defer cl.Close()
	value := make([]byte, 1000)
	rnd := rand.NewChaCha8([32]byte{1})
	for i := range records {
		_, _ = rnd.Read(value)
		cl.Produce(ctx, &kgo.Record{Topic: "big", Partition: int32(i % 3), Key: fmt.Append(nil, i), Value: append([]byte{}, value...)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	harness.Need(t, cl.Flush(ctx))
	// One transaction is committed, one aborted, one stays open.
	for i, end := range []string{"committed", "aborted", "open"} {
		txn, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.TransactionalID("backup-"+end), kgo.DefaultProduceTopic("ledger"), kgo.TransactionTimeout(10*time.Minute))
		harness.Need(t, err)
		t.Cleanup(txn.Close)
		harness.Need(t, txn.BeginTransaction())
		for j := range 5 {
			harness.Need(t, txn.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(end, " ", j))).FirstErr())
		}
		if i < 2 {
			harness.Need(t, txn.EndTransaction(ctx, kgo.TransactionEndTry(i == 0)))
		}
	}
	offsets := kadm.Offsets{}
	for p := range int32(3) {
		offsets.Add(kadm.Offset{Topic: "big", Partition: p, At: int64(100 * (p + 1)), LeaderEpoch: 1, Metadata: "m"})
	}
	_, err = kadm.NewClient(cl).CommitOffsets(ctx, "readers", offsets)
	harness.Need(t, err)
}

// chains gives of each partition a hash over offsets and records as a client reads them, and what
// groups have committed.
func chains(t *testing.T, c *harness.Cluster, isolation kgo.IsolationLevel) map[string]string {
	t.Helper()
	return chainsOf(t, c, isolation, "big")
}

// chainsOf is chains of a topic that stands for big.
func chainsOf(t *testing.T, c *harness.Cluster, isolation kgo.IsolationLevel, big string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.FetchIsolationLevel(isolation), kgo.ConsumeTopics(big, "ledger"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	harness.Need(t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ends, err := adm.ListEndOffsets(ctx, big, "ledger")
	harness.Need(t, err)
	out, sums, at := map[string]string{}, map[string][]byte{}, map[string]int64{}
	left := func() bool {
		for p, end := range map[string]int64{"big-0": 0, "big-1": 0, "big-2": 0} {
			o, _ := ends.Lookup(big, int32(p[4]-'0'))
			if end = o.Offset; at[p] < end {
				return true
			}
		}
		return at["ledger-0"] < 5
	}
	for left() {
		fetches := cl.PollFetches(ctx)
		harness.Need(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			name := fmt.Sprintf("%s-%d", r.Topic, r.Partition)
			if r.Topic == big {
				name = fmt.Sprintf("big-%d", r.Partition)
			}
			sum := sha256.Sum256(fmt.Appendf(sums[name], "%d %d %d %d %d %s %s", r.Offset, r.LeaderEpoch, r.ProducerID, r.ProducerEpoch, r.Timestamp.UnixMilli(), r.Key, r.Value))
			sums[name], at[name] = sum[:], r.Offset+1
		})
	}
	for name, sum := range sums {
		out[name] = hex.EncodeToString(sum)
	}
	groups, err := adm.FetchOffsets(ctx, "readers")
	harness.Need(t, err)
	out["group"] = fmt.Sprint(groups.Sorted())
	return out
}

// batchChains gives of each partition a hash chain over its batches, as they are in the log, from
// its beginning to its end.
func batchChains(t *testing.T, c *harness.Cluster, topics ...string) map[string][]link {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// From version 13 on topics have ids.
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.MaxVersions(kversion.V2_8_0()))
	must(t, err)
	defer cl.Close()
	// The high watermark of an answer may be that of a moment ago; these ends are not.
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics...)
	must(t, err)
	must(t, ends.Error())
	chains := map[string][]link{}
	for topic, partitions := range ends {
		for p, partition := range partitions {
			name := fmt.Sprintf("%s-%d", topic, p)
			for sum, next, end := "", int64(0), partition.Offset; next < end; {
				must(t, ctx.Err())
				part := kmsg.FetchRequestTopicPartition{Partition: p, CurrentLeaderEpoch: -1, FetchOffset: next, LastFetchedEpoch: -1, LogStartOffset: -1, PartitionMaxBytes: 1 << 20}
				r := kmsg.NewPtrFetchRequest()
				r.MaxWaitMillis, r.MinBytes, r.MaxBytes = 1000, 1, 1<<20
				r.Topics = []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{part}}}
				answer, err := cl.SeedBrokers()[0].RetriableRequest(ctx, r)
				must(t, err)
				got := answer.(*kmsg.FetchResponse).Topics[0].Partitions[0]
				if err := kerr.ErrorForCode(got.ErrorCode); kerr.IsRetriable(err) {
					continue // it is fetched from the tier
				} else if err != nil {
					t.Fatalf("%s at offset %d: %v", name, next, err)
				}
				for data := got.RecordBatches; len(data) >= 61; {
					size := 12 + int(binary.BigEndian.Uint32(data[8:]))
					if size > len(data) {
						break // it is cut
					}
					base := int64(binary.BigEndian.Uint64(data))
					after := base + int64(binary.BigEndian.Uint32(data[23:])) + 1
					if base < end && after > next {
						sum, next = fmt.Sprintf("%x", sha256.Sum256(append([]byte(sum), data[:size]...))), after
						chains[name] = append(chains[name], link{next, sum})
					}
					data = data[size:]
				}
			}
		}
	}
	return chains
}

// link is where a batch ends, and the hash of it and of all in front of it.
type link struct {
	Next int64
	Sum  string
}

// beginsWith says whether a partition's log has all batches of another one, and perhaps more.
func beginsWith(log, begin []link) error {
	if n := len(begin); n == 0 || len(log) < n || log[n-1] != begin[n-1] {
		for i := range min(n, len(log)) {
			if log[i] != begin[i] {
				return fmt.Errorf("batch %d of %d and %d differs: %v, wanted %v", i, len(log), n, log[i], begin[i])
			}
		}
		return fmt.Errorf("%d batches, wanted %d", len(log), n)
	}
	return nil
}

// What is lost is restored: to S3, whose server fails, while a node is killed; into another
// cluster, of which a node is killed, too, by a command that is killed and begun again. Then all is
// as it was: records, offsets, leader epochs, producers, transactions, groups, users.
func TestBackupOfWhatIsLost(t *testing.T) {
	s3 := newFaultyS3(t, 7)
	env := []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"}
	bin := program(t, "trimaran")
	// Who does not log in may do everything, so that there can be users and ACLs.
	args := []string{"--authorize", "--super-users", "User:ANONYMOUS", "--sasl-mechanisms", "SCRAM-SHA-512", "--sasl-optional"}
	source := harness.New(t, harness.Options{NoShim: true, NodeArgs: args})
	loaded(t, source, 30_000)
	from := cli(source)
	from.env = append(from.env, env...)
	from.env = append(from.env, "TRIMARAN_BROKERS="+strings.Join(source.Addrs(), ","), "TRIMARAN_PASSWORD=correct horse")
	from.ok(t, bin, "user", "create", "alice")
	from.ok(t, bin, "acl", "add", "--principal", "User:alice", "--topic", "big", "--operation", "read")
	place := s3.store("one")

	s3.faults.Store(true)
	killed := make(chan error, 1)
	go func() { killed <- source.Node(2).Kill9() }()
	type created struct {
		ID                       string
		Bytes, Uploaded, Objects int64
	}
	create := func() (c created) {
		t.Helper()
		harness.Need(t, json.Unmarshal([]byte(from.ok(t, bin, "backup", "create", "--to", place, "--json")), &c))
		return c
	}
	first := create()
	harness.Need(t, <-killed)
	harness.Need(t, source.Node(2).Restart())
	if first.Bytes < 30_000_000 || first.Uploaded != first.Bytes {
		t.Errorf("%+v", first)
	}
	stdin := from
	stdin.stdin = "one more\n"
	stdin.ok(t, bin, "produce", "big", "--partition", "1")
	second := create()
	if second.Bytes <= first.Bytes || second.Objects < 1 || second.Objects > 2 || second.Uploaded > 1000 {
		t.Errorf("a record was added, and this was stored: %+v", second)
	}
	from.ok(t, bin, "backup", "verify", "--from", place, "--all")
	contains(t, "backup list", from.ok(t, bin, "backup", "list", "--from", place), first.ID, second.ID)
	if s3.failures() == 0 {
		t.Error("the store has not failed once")
	}
	want, committed := chains(t, source, kgo.ReadUncommitted()), chains(t, source, kgo.ReadCommitted())
	for _, n := range source.Nodes {
		harness.Need(t, n.Kill9())
	}

	// Who asks where a topic ends would create it.
	target := harness.New(t, harness.Options{NoShim: true, NodeArgs: append(args, "--auto-create-topics=false")})
	to := cli(target)
	to.env = append(append(to.env, env...), "TRIMARAN_BROKERS="+strings.Join(target.Addrs(), ","))
	s3.slow.Store(int64(300 * time.Millisecond))
	restore := []string{"backup", "restore", "--from", place, "--parallel", "1"}
	tool := exec.Command(bin, restore...)
	tool.Env = append(os.Environ(), to.env...)
	var said strings.Builder
	tool.Stdout, tool.Stderr = &said, &said
	harness.Need(t, tool.Start())
	if err := harness.Eventually(time.Minute, func() bool {
		at, err := harness.EndOffset(t.Context(), target.Node(1).Addr(), "big", 0, -1)
		return err == nil && at > 0
	}); err != nil {
		_ = tool.Process.Kill()
		_ = tool.Wait()
		t.Fatalf("nothing is restored: %v\n%s", err, said.String())
	}
	harness.Need(t, tool.Process.Kill())
	_ = tool.Wait()
	harness.Need(t, target.Node(3).Kill9())
	early := to
	early.stdin = "too early\n"
	if r := early.run(t, bin, "produce", "big", "--partition", "0", "--timeout", "3s"); r.code == 0 {
		t.Error("a client appended to what is being restored")
	}
	contains(t, "restore", to.ok(t, bin, restore...), "offsets of 1 group, 1 user, 1 ACL")
	contains(t, "restore again", to.ok(t, bin, restore...), "restored before: big")
	harness.Need(t, target.Node(3).Restart())
	s3.slow.Store(0)
	contains(t, "compare", to.ok(t, bin, "backup", "compare", "--from", place), "is what the cluster has")
	if got := chains(t, target, kgo.ReadUncommitted()); !sameChains(got, want) {
		t.Errorf("it was\n%v\nand is\n%v", want, got)
	}
	if got := chains(t, target, kgo.ReadCommitted()); !sameChains(got, committed) {
		t.Errorf("what is committed was\n%v\nand is\n%v", committed, got)
	}
	harness.Need(t, target.Node(3).WaitReady(time.Minute))
	to.ok(t, bin, "cluster", "verify", "big")
	contains(t, "user list", to.ok(t, bin, "user", "list"), "alice")
	more := to
	more.stdin = "and on\n"
	more.ok(t, bin, "produce", "big", "--partition", "0")
	if at, err := harness.EndOffset(t.Context(), target.Node(1).Addr(), "big", 0, -1); err != nil || at != 10_001 {
		t.Errorf("the log ends at %d, %v", at, err)
	}
	if r := to.run(t, bin, "backup", "create", "--to", place); r.code == 0 || !strings.Contains(r.err, "another cluster") {
		t.Errorf("two clusters with one place: %d, %s", r.code, r.err)
	}
	s3.faults.Store(false)
	contains(t, "prune", from.ok(t, bin, "backup", "prune", "--from", place, "--keep", "1", "--grace", "0s"), "1 backup")
	contains(t, "prune again", from.ok(t, bin, "backup", "prune", "--from", place, "--grace", "0s"), "0 objects")
	from.ok(t, bin, "backup", "verify", "--from", place)
}

func sameChains(a, b map[string]string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// Nodes make backups by themselves, one of them; when that one dies another goes on.
func TestNodesMakeBackups(t *testing.T) {
	dir := t.TempDir()
	c := harness.New(t, harness.Options{NoShim: true, Topics: "events:2:3", NodeArgs: []string{"--backup-to", "file://" + dir, "--backup-interval", "10s", "--backup-keep", "2"}})
	bin := program(t, "trimaran")
	shell := cli(c)
	shell.env = append(shell.env, "TRIMARAN_BROKERS="+strings.Join(c.Addrs(), ","))
	last := func() (node, id string) {
		var status struct {
			Nodes []struct {
				ID     string
				Backup *struct{ ID string }
			}
		}
		r := shell.run(t, bin, "cluster", "status", "--json")
		if r.code == 0 && json.Unmarshal([]byte(r.out), &status) == nil {
			for _, n := range status.Nodes {
				if n.Backup != nil && n.Backup.ID != "" {
					return n.ID, n.Backup.ID
				}
			}
		}
		return "", ""
	}
	by, id := "", ""
	harness.Need(t, harness.Eventually(time.Minute, func() bool { by, id = last(); return id != "" }))
	contains(t, "cluster status", shell.ok(t, bin, "cluster", "status"), "Backups: to file://"+dir+" every 10s by "+by, id)
	text, _, err := harness.Get("http://" + c.NodeByID(by).Addr() + "/metrics")
	harness.Need(t, err)
	contains(t, "metrics", text, "trimaran_backup_last_timestamp_seconds", "trimaran_backup_failures_total 0")
	harness.Need(t, c.NodeByID(by).Kill9())
	if err := harness.Eventually(time.Minute, func() bool {
		now, newer := last()
		return now != by && newer > id
	}); err != nil {
		t.Fatalf("%s is dead, and nobody makes backups: %v", by, err)
	}
	shell.ok(t, bin, "backup", "verify", "--from", "file://"+dir, "--all")
	// A segment that somebody has changed.
	var object string
	shell.stdin = "one\n"
	shell.ok(t, bin, "produce", "events")
	shell.ok(t, bin, "backup", "create", "--to", "file://"+dir)
	harness.Need(t, filepath.WalkDir(filepath.Join(dir, "segments"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			object = path
		}
		return err
	}))
	data, err := os.ReadFile(object)
	harness.Need(t, err)
	data[len(data)-1] ^= 1
	harness.Need(t, os.WriteFile(object, data, 0o600))
	if r := shell.run(t, bin, "backup", "verify", "--from", "file://"+dir); r.code != 1 || !strings.Contains(r.out, "SHA-256") {
		t.Errorf("code %d, %s%s", r.code, r.out, r.err)
	}
}

// backupExample runs a line about backups, with a backup of a small cluster where the line says,
// and an empty cluster for what is restored.
func backupExample(t *testing.T, bin, line string) {
	t.Helper()
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, Topics: "orders:2,orders-old:1"})
	env := []string{"TRIMARAN_BROKERS=" + c.Node(1).Addr(), "PATH=" + bin + ":" + os.Getenv("PATH")}
	command{env: env, stdin: "one\ntwo\n"}.ok(t, filepath.Join(bin, "trimaran"), "produce", "orders")
	place := "file://" + t.TempDir()
	shell := command{env: env}
	shell.ok(t, filepath.Join(bin, "trimaran"), "backup", "create", "--to", place)
	if strings.Contains(line, "backup restore") && !strings.Contains(line, "=") {
		empty := harness.New(t, harness.Options{Nodes: 1, NoShim: true})
		shell.env = append(env, "TRIMARAN_BROKERS="+empty.Node(1).Addr())
	}
	line = strings.NewReplacer("file:///backups/one", place, "s3://backups/one?endpoint=https://s3.example.org", place, "2026-01-31T12:00:00Z", "2099-01-31T12:00:00Z").Replace(line)
	shell.ok(t, "bash", "-euo", "pipefail", "-c", line)
}
