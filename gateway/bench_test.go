package gateway

import (
	"context"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// What the gateway spends per Produce of one record, one at a time, beside the cluster.
func BenchmarkProduce(b *testing.B) {
	f := newFake(b, "events")
	f.append = func(_ context.Context, _ fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		return make([]fsm.Appended, len(batches)), nil
	}
	c := serve(b, f, nil).dial()
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	frame := encode(1, produceAt(9, f, "events", 0, recordBatch("value")))
	b.ReportAllocs()
	for b.Loop() {
		c.send(frame)
		if _, err := c.frame(); err != nil {
			b.Fatal(err)
		}
	}
}

// What the gateway spends per Fetch of one record, one at a time, beside the cluster.
func BenchmarkFetch(b *testing.B) {
	f := newFake(b, "events")
	c := serve(b, f, nil).dial()
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	c.send(encode(1, produceAt(9, f, "events", 0, recordBatch("value"))))
	if _, err := c.frame(); err != nil {
		b.Fatal(err)
	}
	frame := encode(1, fetchAt(11, f, 0, 1<<20, "events"))
	b.ReportAllocs()
	for b.Loop() {
		c.send(frame)
		if _, err := c.frame(); err != nil {
			b.Fatal(err)
		}
	}
}
