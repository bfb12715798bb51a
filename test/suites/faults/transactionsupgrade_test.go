package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// lastWithoutTransactions is the last commit whose program knows none.
const lastWithoutTransactions = "01800b7"

// Under a load of transactional producers that try again and again, and of others, a cluster that
// knows no transactions becomes one that does, node by node. No transaction begins before all nodes
// know them, and producers are told so; then they begin by themselves. Nothing is lost.
func TestTransactionsBeginWhenAllNodesKnowThem(t *testing.T) {
	t.Parallel()
	older, err := harness.ProgramOf(lastWithoutTransactions)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	newer, err := harness.Program("trimaran")
	must(t, err)
	c := harness.New(t, harness.Options{Program: older})
	create(t, c, "plain", 3)
	create(t, c, "exact", 3)
	plain := harness.StartLoad("plain", 3, append(c.Addrs(), c.ShimAddr()), -1)
	defer plain.Stop()
	must(t, plain.Progress(50, patience))

	exact := &transactors{topic: "exact", fates: map[string]bool{}, told: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done sync.WaitGroup
	for i, addr := range append(c.Addrs(), c.ShimAddr()) {
		done.Go(func() { exact.run(ctx, i, addr) })
	}
	refused := func() int { return exact.toldSo(kerr.TransactionalIDAuthorizationFailed.Message) }
	for i, n := range c.Nodes {
		// Who asks is refused, by old nodes and by new ones.
		before := refused()
		must(t, harness.Eventually(patience, func() bool { return refused() >= before+20 }))
		_, err := n.Terminate(patience)
		must(t, err)
		if i == len(c.Nodes)-1 {
			exact.allKnow.Store(true)
		}
		n.Path = newer
		must(t, n.Start())
		must(t, n.WaitReady(patience))
		must(t, plain.Progress(50, patience))
	}
	must(t, harness.Eventually(patience, func() bool { return exact.committed() >= 100 }))
	stop()
	done.Wait()
	t.Logf("%d transactions, and before them: %v", exact.committed(), exact.told)
	exact.mu.Lock()
	defer exact.mu.Unlock()
	if exact.early > 0 {
		t.Errorf("%d transactions were begun before all nodes knew them", exact.early)
	}
	for text, n := range exact.told {
		// Beside the refusal there is what a client hears of a node that stops.
		for _, is := range []string{"SERVER_ERROR", "context deadline"} {
			if strings.Contains(strings.ToUpper(text), strings.ToUpper(is)) {
				t.Errorf("%d × %s", n, text)
			}
		}
	}
	verify(t, c, plain)
	for _, addr := range append(c.Addrs(), c.ShimAddr()) {
		exact.verify(t, addr)
	}
}

// transactors are transactional producers: each writes transactions of a record to each of three
// partitions.
type transactors struct {
	topic   string
	allKnow atomic.Bool // the last node is to know transactions

	mu    sync.Mutex
	fates map[string]bool // transactions, and whether their commit was acknowledged
	told  map[string]int  // errors, and how often
	early int             // producer ids given before allKnow
}

func (x *transactors) toldSo(text string) (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for told, times := range x.told {
		if strings.Contains(told, text) {
			n += times
		}
	}
	return n
}

func (x *transactors) committed() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, surely := range x.fates {
		if surely {
			n++
		}
	}
	return n
}

func (x *transactors) run(ctx context.Context, producer int, addr string) {
	for life := 0; ctx.Err() == nil; life++ {
		err := x.live(ctx, fmt.Sprintf("%d-%d", producer, life), fmt.Sprintf("transactor-%d", producer), addr)
		if err != nil && ctx.Err() == nil {
			x.mu.Lock()
			x.told[err.Error()]++
			x.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// live writes until something goes wrong.
func (x *transactors) live(ctx context.Context, name, id, addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(x.topic))
	if err != nil {
		return err
	}
	defer cl.Close()
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	known := x.allKnow.Load()
	if _, _, err := cl.ProducerID(within); err != nil {
		return err
	} else if !known {
		// It may have become known meanwhile.
		if !x.allKnow.Load() {
			x.mu.Lock()
			x.early++
			x.mu.Unlock()
		}
	}
	for n := 0; ctx.Err() == nil; n++ {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		txn := fmt.Sprintf("%s-%d", name, n)
		x.mu.Lock()
		x.fates[txn] = false
		x.mu.Unlock()
		// A transaction that has begun is brought to its end.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		var records []*kgo.Record
		for p := range int32(3) {
			records = append(records, &kgo.Record{Partition: p, Value: []byte(txn)})
		}
		err := cl.ProduceSync(within, records...).FirstErr()
		if err == nil {
			err = cl.EndTransaction(within, kgo.TryCommit)
		}
		cancel()
		if err != nil {
			return err
		}
		x.mu.Lock()
		x.fates[txn] = true
		x.mu.Unlock()
	}
	return nil
}

// verify reads what is committed: all of each transaction whose commit was acknowledged, all or
// nothing of the others, and nothing twice.
func (x *transactors) verify(t *testing.T, addr string) {
	t.Helper()
	offsets := map[int32]kgo.Offset{0: kgo.NewOffset().At(0), 1: kgo.NewOffset().At(0), 2: kgo.NewOffset().At(0)}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{x.topic: offsets}))
	must(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Behind markers there is nothing that a reader is given, so a last record is written to each.
	last := "last through " + addr
	for p := range int32(3) {
		must(t, cl.ProduceSync(ctx, &kgo.Record{Topic: x.topic, Partition: p, Value: []byte(last)}).FirstErr())
	}
	got := map[string]map[int32]int{}
	for open := 3; open > 0; {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err0()); err != nil {
			t.Fatalf("through %s: %d transactions were read, of %d: %v", addr, len(got), len(x.fates), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			value := string(r.Value)
			switch {
			case value == last:
				open--
			case !strings.HasPrefix(value, "last"):
				if got[value] == nil {
					got[value] = map[int32]int{}
				}
				got[value][r.Partition]++
			}
		})
	}
	for txn, surely := range x.fates {
		if surely && len(got[txn]) == 0 {
			t.Errorf("through %s: transaction %s is not there", addr, txn)
		}
	}
	for txn, records := range got {
		if _, written := x.fates[txn]; !written || len(records) != 3 {
			t.Errorf("through %s: %d records of transaction %s", addr, len(records), txn)
		}
		for p, times := range records {
			if times != 1 {
				t.Errorf("through %s: the record of %s in partition %d is there %d times", addr, txn, p, times)
			}
		}
	}
}

// Transactions go on while the nodes of a cluster that knows them become ones of this program: the
// checker of transactions names no anomaly, in either version.
func TestUpgradeUnderTransactions(t *testing.T) {
	t.Parallel()
	older, err := harness.ProgramOf("HEAD~1")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	checker := filepath.Join(t.TempDir(), "checker")
	build := exec.Command("go", "build", "-trimpath", "-o", checker, "./tools/transactions")
	build.Dir = filepath.Join(harness.Root(), "test")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	newer, err := harness.Program("trimaran")
	must(t, err)
	for _, version := range []string{"-v1=false", "-v1"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(checker, "-upgrade-from", older, "-seconds", "20", version)
			cmd.Env = append(os.Environ(), "TRIMARAN_BIN="+filepath.Dir(newer))
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			must(t, err)
		})
	}
}
