package costs

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// A transaction is as fast as its entries are few that are written one behind the other, each of
// which takes a sync on three nodes: that its partition is in it, its record, that it is to be
// committed, and the marker. That it is over is in the entry that begins the next one. A machine of
// two cores counts 12.3 syncs and 23 to 24 messages; where that had an entry of its own, and each
// request had a majority confirm the coordinator, it was 15.0 and 28 to 35.
func TestATransactionAfterAnother(t *testing.T) {
	const (
		transactions = 200
		mostSyncs    = 10
		mostMessages = 26
		leastSyncs   = 3 * 2 // of a majority, for what was acknowledged and what that rests on
	)
	bin, err := harness.PlainBinaries()
	if err != nil {
		t.Fatal(err)
	}
	c := harness.New(t, harness.Options{NoShim: true, Program: bin + "/trimaran"})
	if err := c.CreateTopic(t.Context(), "transactions", 1, 3); err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader("transactions", 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	x, err := harness.NewTransactor(leader.Addr(), "costs", "transactions", 1, bytes.Repeat([]byte{'x'}, 1<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	run := func(n int) {
		t.Helper()
		for range n {
			if _, _, err := x.Transaction(); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted := func() (syncs, messages float64) {
		t.Helper()
		const flushes, sent = "trimaran_log_flush_time_seconds_count", "trimaran_peer_messages_out_total"
		if err := c.WaitApplied(time.Minute); err != nil {
			t.Fatal(err)
		}
		m, err := c.Metrics(flushes, sent)
		if err != nil {
			t.Fatal(err)
		}
		return m[flushes], m[sent]
	}
	run(20) // the first find cold caches
	var all []string
	for range rounds {
		syncs, messages := counted()
		run(transactions)
		laterSyncs, laterMessages := counted()
		syncs, messages = (laterSyncs-syncs)/transactions, (laterMessages-messages)/transactions
		t.Logf("for each transaction: %.2f syncs, %.1f messages", syncs, messages)
		if syncs < leastSyncs {
			t.Fatalf("%.2f syncs for a transaction: something was acknowledged without a majority's", syncs)
		}
		if syncs <= mostSyncs && messages <= mostMessages {
			return
		}
		all = append(all, fmt.Sprintf("%.2f syncs, %.1f messages", syncs, messages))
	}
	t.Errorf("none of %d rounds is within %d syncs and %d messages for each transaction: %v", rounds, mostSyncs, mostMessages, all)
}
