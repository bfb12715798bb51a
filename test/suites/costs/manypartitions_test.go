package costs

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What a request to many partitions has nodes tell each other goes in few writes: each partition is
// a Raft group with messages of its own, and a connection's writer waits for all that are ready.
func TestMessagesOfManyPartitionsShareWrites(t *testing.T) {
	const (
		partitions, inFlight, sent = 60, 5, 150
		// Where a writer did not wait it was 1.4; a machine of two cores counts 9.
		least = 2.5
	)
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	c := harness.New(t, harness.Options{NoShim: true, Program: bin + "/trimaran"})
	if err := c.CreateTopic(t.Context(), "many", partitions, 3); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitApplied(time.Minute); err != nil {
		t.Fatal(err)
	}
	w, err := harness.DialWire(c.Node(1).Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	request := harness.Request(0, 0, 1, manyBody("many", partitions))
	well := func(answer []byte) error { return allWell(answer, partitions) }
	exchange(t, w, request, 20, inFlight, well) // the first find cold connections
	var all []float64
	for range rounds {
		messages, writes := talk(t, c)
		exchange(t, w, request, sent, inFlight, well)
		laterMessages, laterWrites := talk(t, c)
		messages, writes = laterMessages-messages, laterWrites-writes
		t.Logf("for each request to %d partitions: %.1f messages in %.1f writes", partitions, messages/sent, writes/sent)
		if messages < partitions*sent {
			t.Fatalf("%.0f messages for %d records, which two followers have: they are not counted", messages, partitions*sent)
		}
		if all = append(all, messages/writes); messages >= least*writes {
			return
		}
	}
	t.Errorf("messages in a write: %.2f, want %.1f in one of the rounds", all, least)
}

// talk gives the messages between nodes so far, and the writes that they went in.
func talk(t *testing.T, c *harness.Cluster) (messages, writes float64) {
	t.Helper()
	const sent, calls = "trimaran_peer_messages_out_total", "trimaran_peer_writes_total"
	m, err := c.Metrics(sent, calls)
	if err != nil {
		t.Fatal(err)
	}
	return m[sent], m[calls]
}

// manyBody is a Produce v0 request with a record of 1 KB for each partition.
func manyBody(topic string, partitions int) []byte {
	set := harness.Message(nil, 0, 0, nil, bytes.Repeat([]byte{'x'}, 1<<10))
	b := harness.Int32(harness.Int16(nil, -1), 30_000)
	b = harness.Int32(harness.Str(harness.Int32(b, 1), topic), int32(partitions))
	for p := range partitions {
		b = harness.Bytes(harness.Int32(b, int32(p)), set)
	}
	return b
}

// allWell is nil if a Produce v0 answer about one topic has an offset for each of its partitions.
func allWell(answer []byte, partitions int) error {
	r := harness.Reader{B: answer}
	topics, _, n := r.Int32(), r.Str(), r.Int32()
	if topics != 1 || int(n) != partitions {
		return fmt.Errorf("an answer about %d topics with %d partitions", topics, n)
	}
	for range n {
		partition, code, base := r.Int32(), r.Int16(), r.Int64()
		if code != 0 || base < 0 {
			return fmt.Errorf("partition %d: %w, offset %d", partition, harness.ErrorCode(code), base)
		}
	}
	return r.End()
}
