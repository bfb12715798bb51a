package clients

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// franz-go's transactions: those of today, whose partitions are added as records come (KIP-890),
// and those of Kafka 2.4, the last one before members and generations were checked (KIP-447), and
// 3.8, which adds them by a request of its own.
func TestFranzGoTransactions(t *testing.T) {
	c := harness.Shared(t)
	for name, versions := range map[string]*kversion.Versions{"today": nil, "3.8": kversion.V3_8_0(), "2.4": kversion.V2_4_0()} {
		for _, r := range routes(c) {
			t.Run(name+"/"+r.name, func(t *testing.T) {
				opts := []kgo.Opt{kgo.SeedBrokers(r.addr)}
				if r.dial != nil {
					opts = append(opts, kgo.Dialer(r.dial))
				}
				if versions != nil {
					opts = append(opts, kgo.MaxVersions(versions))
				}
				in, out := harness.Topic("txn-in"), harness.Topic("txn-out")
				mustCreate(t, c, in, 1)
				mustCreate(t, c, out, 2)
				consumeTransformProduce(t, opts, in, out)
			})
		}
	}
}

// consumeTransformProduce reads a topic ten records at a time and writes each one to both
// partitions of another, in transactions of which every second one is aborted, and so comes again.
func consumeTransformProduce(t *testing.T, opts []kgo.Opt, in, out string) {
	t.Helper()
	ctx := testContext(t)
	const n = 30
	writer, err := kgo.NewClient(append(slices.Clone(opts), kgo.DefaultProduceTopic(in))...)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for i := range n {
		if err := writer.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	group, id := "group-"+out, "id-"+out
	session, err := kgo.NewGroupTransactSession(append(slices.Clone(opts),
		kgo.TransactionalID(id), kgo.TransactionTimeout(30*time.Second), kgo.ConsumerGroup(group), kgo.ConsumeTopics(in),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DefaultProduceTopic(out),
	)...)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	transactions, last := 0, -1
	for last < n-1 {
		fetches := session.PollRecords(ctx, 10)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			t.Fatal(err)
		}
		commit := kgo.TryCommit
		if transactions++; transactions%2 == 1 {
			commit = kgo.TryAbort
		}
		promise := kgo.AbortingFirstErrPromise(session.Client())
		for r := range fetches.RecordsAll() {
			for partition := range int32(2) {
				session.Produce(ctx, &kgo.Record{Value: fmt.Appendf(nil, "%s in transaction %d", r.Value, transactions), Partition: partition}, promise.Promise())
			}
		}
		if err := promise.Err(); err != nil {
			t.Fatal(err)
		}
		committed, err := session.End(ctx, commit)
		if err != nil {
			t.Fatal(err)
		}
		if committed != (commit == kgo.TryCommit) {
			t.Fatalf("transaction %d: committed %v", transactions, committed)
		}
		if committed {
			records := fetches.Records()
			if _, err := fmt.Sscan(string(records[len(records)-1].Value), &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	for partition := range int32(2) {
		got := valuesOf(ctx, t, opts, out, partition, n)
		for i, value := range got {
			var number, transaction int
			if _, err := fmt.Sscanf(value, "%d in transaction %d", &number, &transaction); err != nil || number != i || transaction%2 == 1 {
				t.Fatalf("partition %d: what was committed is %q (%v)", partition, got, err)
			}
		}
	}
	adm := kadm.NewClient(writer)
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup(in, 0); !ok || o.At != n {
		t.Errorf("the group's offset is %+v, want %d", o, n)
	}
}

// valuesOf reads n records of a partition that are committed.
func valuesOf(ctx context.Context, t *testing.T, opts []kgo.Opt, topic string, partition int32, n int) (values []string) {
	t.Helper()
	reader, err := kgo.NewClient(append(slices.Clone(opts), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for len(values) < n {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records came: %v", len(values), n, err)
		}
		for r := range fetches.RecordsAll() {
			values = append(values, string(r.Value))
		}
	}
	return values
}
