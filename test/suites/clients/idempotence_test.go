package clients

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz-go at its defaults is an idempotent producer with several requests in
// flight. While the nodes that lead its partitions are killed one after the other,
// and come back, it neither loses nor doubles a record nor changes their order.
func TestFranzGoProducesEachRecordOnceThroughFailovers(t *testing.T) {
	c := harness.New(t, harness.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	const topic, partitions = "each-once", 3
	mustCreate(t, c, topic, partitions)

	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ShimAddr()), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(200))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var stop atomic.Bool
	var acknowledged atomic.Int64
	var sent [partitions]int
	var failed sync.Map
	var producing sync.WaitGroup
	producing.Go(func() {
		for i := 0; !stop.Load(); i++ {
			p := int32(i % partitions)
			value := fmt.Sprint(sent[p])
			sent[p]++
			cl.Produce(ctx, &kgo.Record{Partition: p, Value: []byte(value)}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(fmt.Sprint(p, "/", value), err)
				}
				acknowledged.Add(1)
			})
		}
	})
	defer producing.Wait()
	defer stop.Store(true)
	progress := func() {
		t.Helper()
		until := acknowledged.Load() + 300
		if err := harness.Eventually(2*time.Minute, func() bool { return acknowledged.Load() >= until }); err != nil {
			t.Fatal(err)
		}
	}
	for p := range int32(partitions) {
		progress()
		n, err := c.Leader(topic, p, 2*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Kill9(); err != nil {
			t.Fatal(err)
		}
		progress()
		if err := n.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	progress()
	stop.Store(true)
	producing.Wait()
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	failed.Range(func(record, err any) bool { t.Errorf("%v: %v", record, err); return true })
	for p := range int32(partitions) {
		records, err := harness.ReadAll(ctx, []kgo.Opt{kgo.SeedBrokers(c.Node(2).Addr())}, topic, p, sent[p])
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range records {
			if string(r.Value) != fmt.Sprint(i) || r.Offset != int64(i) {
				t.Fatalf("partition %d: %q at offset %d, want %d", p, r.Value, r.Offset, i)
			}
		}
		t.Logf("partition %d: %d records", p, len(records))
	}
}
