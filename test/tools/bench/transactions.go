package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What transactions cost: beside idempotent producing, one by one in units of what the machine
// gives, and to those who read. All by version 2 of the protocol.

const (
	// paced is how long the client of paced transactions does nothing after each: the markers of
	// the last are written by then.
	paced = 20 * time.Millisecond
	// transactionRounds is how often what is compared is measured in turns.
	transactionRounds = 5
)

// oneTransaction measures this program, or, with -beside, another one in turns with it.
func (b *bench) oneTransaction() error {
	disks := []struct {
		what, dir, program string
		env                []string
		sync               time.Duration // 0: it is measured
	}{{"one disk for three nodes", b.diskDir, "", nil, 0}}
	if b.memoryDir != "" {
		program, err := harness.MeasuringProgram()
		if err != nil {
			return err
		}
		for _, sync := range []time.Duration{300 * time.Microsecond, time.Millisecond} {
			d := disks[0]
			d.what, d.dir, d.program, d.sync = "a disk for each, a sync takes "+ms(sync), b.memoryDir, program, sync
			d.env = append([]string{"TRIMARAN_TEST_SYNC=" + sync.String()}, small...)
			disks = append(disks, d)
		}
	}
	fmt.Println("  one transaction, from its first record of 1 KB to the answer to EndTxn, in units of a sync and a round trip; per transaction")
	for _, d := range disks {
		if b.beside != "" && d.program != "" {
			continue // another program has no syncs that are made to take time
		}
		fmt.Printf("  %s\n", d.what)
		err := b.with(d.dir, d.env, d.program, func(c *harness.Cluster) error {
			if b.beside == "" {
				return b.transactionLatency(d.sync, &transacting{Cluster: c, name: ""})
			}
			return b.with(d.dir, d.env, b.beside, func(other *harness.Cluster) error {
				return b.transactionLatency(d.sync, &transacting{Cluster: other, name: "beside, "}, &transacting{Cluster: c, name: ""})
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// transacting is a cluster, and what was measured there.
type transacting struct {
	*harness.Cluster
	name string
	ways []transactionWay
	// of each way
	produce, end, all [][]time.Duration
	counts            []counted
}

// transactionWay is a client that does a transaction and waits for it.
type transactionWay struct {
	what  string
	pause time.Duration // after each
	one   func() (produced, ended time.Duration, err error)
	close func()
}

// transactionLatency measures transactions with a record to each of some partitions, on clusters in
// turns. A sync takes that long, 0: it is measured in the same turns.
func (b *bench) transactionLatency(sync time.Duration, clusters ...*transacting) error {
	fmt.Printf("  %-38s %9s %9s %7s %9s %7s %9s %9s %7s %9s %9s %9s\n", "partitions, client", "unit", "p50", "units", "p99", "units", "produce", "end", "syncs", "messages", "switches", "CPU")
	for _, n := range []int{1, 10, 100} {
		for _, c := range clusters {
			if err := c.connect(n); err != nil {
				return err
			}
		}
		for i := range clusters[0].ways {
			var units []time.Duration
			for turn := range turns {
				for j := range clusters {
					if turn%2 == 1 { // A B B A
						j = len(clusters) - 1 - j
					}
					unit, err := b.unit(sync)
					if err != nil {
						return err
					}
					units = append(units, unit)
					if err := clusters[j].window(i, b.window/turns); err != nil {
						return fmt.Errorf("%s: %w", clusters[j].ways[i].what, err)
					}
				}
			}
			for _, c := range clusters {
				c.print(i, n, quantile(units, 0.5))
			}
		}
		for _, c := range clusters {
			for _, w := range c.ways {
				w.close()
			}
		}
	}
	return nil
}

// unit is a sync and a round trip, as they are now.
func (b *bench) unit(sync time.Duration) (time.Duration, error) {
	if sync > 0 {
		return sync + b.roundTrip, nil
	}
	_, sync, err := writers(b.diskDir, 1, 4<<10, 50*time.Millisecond)
	return sync + b.roundTrip, err
}

// connect makes a topic with n partitions, and the clients.
func (c *transacting) connect(n int) error {
	t, err := topic(c.Cluster, fmt.Sprintf("transactions-%d", n), n)
	if err != nil {
		return err
	}
	if err := quiet(c.Cluster); err != nil {
		return err
	}
	leader, err := c.Leader(t, 0, time.Minute)
	if err != nil {
		return err
	}
	plain, err := kgo.NewClient(ofBench(c.Cluster, kgo.ProducerLinger(0))...)
	if err != nil {
		return err
	}
	raw, err := harness.NewTransactor(leader.Addr(), t+"-raw", t, n, noise)
	if err != nil {
		return err
	}
	franz, err := transactional(c.Cluster, t+"-franz", kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	idempotent := func() (time.Duration, time.Duration, error) {
		at := time.Now()
		err := oneEach(plain, t, n)
		return time.Since(at), 0, err
	}
	byFranz := func() (time.Duration, time.Duration, error) { return franzTransaction(franz, t, n) }
	c.ways = []transactionWay{
		{"franz-go, idempotent", 0, idempotent, plain.Close},
		{"raw, one after another", 0, raw.Transaction, func() {}},
		{"raw, pauses of 20 ms", paced, raw.Transaction, func() { raw.Close() }},
		{"franz-go, one after another", 0, byFranz, func() {}},
		{"franz-go, pauses of 20 ms", paced, byFranz, franz.Close},
	}
	c.produce, c.end, c.all = make([][]time.Duration, len(c.ways)), make([][]time.Duration, len(c.ways)), make([][]time.Duration, len(c.ways))
	c.counts = make([]counted, len(c.ways))
	for _, w := range c.ways {
		for range 5 { // the first find cold caches and connections
			if _, _, err := w.one(); err != nil {
				return fmt.Errorf("%s: %w", w.what, err)
			}
		}
	}
	return nil
}

// window is one turn of a way.
func (c *transacting) window(i int, window time.Duration) error {
	w := c.ways[i]
	got, err := counting(c.Cluster, func() (n int, err error) {
		for start := time.Now(); time.Since(start) < window; time.Sleep(w.pause) {
			p, e, err := w.one()
			if err != nil {
				return n, err
			}
			c.produce[i], c.end[i], c.all[i] = append(c.produce[i], p), append(c.end[i], e), append(c.all[i], p+e)
			n++
		}
		return n, nil
	})
	c.counts[i].add(got)
	return err
}

func (c *transacting) print(i, partitions int, unit time.Duration) {
	n, all := c.counts[i], c.all[i]
	in := func(d time.Duration) float64 { return float64(d) / float64(unit) }
	p50, p99, by := quantile(all, 0.5), quantile(all, 0.99), float64(max(1, n.times))
	fmt.Printf("  %-38s %9s %9s %7.1f %9s %7.1f %9s %9s %7.1f %9.1f %9.1f %6.2f ms\n", fmt.Sprintf("%s%d, %s", c.name, partitions, c.ways[i].what), ms(unit), ms(p50), in(p50), ms(p99), in(p99),
		ms(quantile(c.produce[i], 0.5)), ms(quantile(c.end[i], 0.5)), n.syncs/by, n.messages/by, float64(n.Switches())/by, float64(n.CPU.Microseconds())/1000/by)
}

// ofBench are the options of all clients of franz-go here.
func ofBench(c *harness.Cluster, more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(c.Node(1).Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, more...)
}

func transactional(c *harness.Cluster, id string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(ofBench(c, append(more, kgo.TransactionalID(id))...)...)
}

var noise = batch(recordSize, false).set[:recordSize]

// oneEach produces a record to each of n partitions and waits for all.
func oneEach(cl *kgo.Client, topic string, n int) error {
	records := make([]*kgo.Record, n)
	for p := range records {
		records[p] = &kgo.Record{Topic: topic, Partition: int32(p), Value: noise}
	}
	return cl.ProduceSync(context.Background(), records...).FirstErr()
}

func franzTransaction(cl *kgo.Client, topic string, n int) (produced, ended time.Duration, err error) {
	at := time.Now()
	if err := cl.BeginTransaction(); err != nil {
		return 0, 0, err
	}
	if err := oneEach(cl, topic, n); err != nil {
		return 0, 0, err
	}
	then := time.Now()
	err = cl.EndTransaction(context.Background(), kgo.TryCommit)
	return then.Sub(at), time.Since(then), err
}

// transactionThroughput compares producing in transactions with idempotent producing, in turns, by
// franz-go, to one partition.
func (b *bench) transactional() error { return b.with(b.diskDir, nil, "", b.transactionThroughput) }

func (b *bench) transactionThroughput(c *harness.Cluster) error {
	fmt.Println("  records of 1 KB to one partition, by franz-go, in turns; p50 and p99 of a transaction, or of as many records and a flush")
	t, err := topic(c, "transactional", 1)
	if err != nil {
		return err
	}
	if err := quiet(c); err != nil {
		return err
	}
	type way struct {
		what    string
		records int // in a transaction, or between flushes
		cl      *kgo.Client
		txn     bool
		got     []result
	}
	var ways []*way
	for _, w := range []*way{
		{what: "idempotent, without a pause", records: 1 << 30},
		{what: "idempotent, flush every 100", records: 100},
		{what: "transactions of 100", records: 100, txn: true},
		{what: "idempotent, flush every 10,000", records: 10_000},
		{what: "transactions of 10,000", records: 10_000, txn: true},
	} {
		opts := []kgo.Opt{kgo.MaxBufferedRecords(10_000)}
		if w.txn {
			w.cl, err = transactional(c, fmt.Sprintf("%s-%d", t, w.records), opts...)
		} else {
			w.cl, err = kgo.NewClient(ofBench(c, opts...)...)
		}
		if err != nil {
			return err
		}
		defer w.cl.Close()
		ways = append(ways, w)
	}
	header()
	for round := range transactionRounds + 1 {
		for _, w := range ways {
			window := b.window / 2
			if round == 0 {
				window /= 4 // the first finds cold caches and connections
			}
			r, err := producing(c, w.cl, t, w.records, w.txn, window)
			if err != nil {
				return fmt.Errorf("%s: %w", w.what, err)
			}
			if round > 0 {
				w.got = append(w.got, r)
			}
		}
	}
	mids := map[bool]map[int]result{false: {}, true: {}}
	for _, w := range ways {
		r := median(w.got)
		r.latency = nil
		for _, one := range w.got {
			r.latency = append(r.latency, one.latency...)
		}
		r.print(w.what)
		mids[w.txn][w.records] = r
	}
	without := mids[false][1<<30]
	for _, n := range []int{100, 10_000} {
		with, flushed := mids[true][n], mids[false][n]
		fmt.Printf("  transactions of %d: %.2f of the MB/s and %.2f of the CPU of idempotent producing with as many flushes, %.2f and %.2f of that without a pause\n", n,
			with.mbs()/flushed.mbs(), with.cpuPerMB()/flushed.cpuPerMB(), with.mbs()/without.mbs(), with.cpuPerMB()/without.cpuPerMB())
	}
	return nil
}

// producing produces records to partition 0 and waits after so many of them, in a transaction or
// not. Its latency is that of each such run.
func producing(c *harness.Cluster, cl *kgo.Client, topic string, records int, txn bool, window time.Duration) (r result, err error) {
	ctx := context.Background()
	before, err := used(c, nil)
	if err != nil {
		return r, err
	}
	var failed kgo.FirstErrPromise
	for start := time.Now(); time.Since(start) < window; r.took = time.Since(start) {
		at := time.Now()
		if txn {
			if err := cl.BeginTransaction(); err != nil {
				return r, err
			}
		}
		n := 0
		for ; n < records && (txn || time.Since(start) < window); n++ {
			cl.Produce(ctx, &kgo.Record{Topic: topic, Value: noise}, failed.Promise())
		}
		if err := errors.Join(cl.Flush(ctx), failed.Err()); err != nil {
			return r, err
		}
		if txn {
			if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
				return r, err
			}
		}
		r.latency = append(r.latency, time.Since(at))
		r.records += n
	}
	r.bytes = r.records * recordSize
	after, err := used(c, nil)
	r.used = usage{after.cpu - before.cpu, after.shim - before.shim, after.wrote - before.wrote}
	return r, err
}

// committedReads compares fetches of both isolation levels, in turns, of a topic without
// transactions and of one that has nothing else, all of them committed.
func (b *bench) isolation() error { return b.with(b.diskDir, nil, "", b.committedReads) }

func (b *bench) committedReads(c *harness.Cluster) error {
	fmt.Println("  fetches, 1 MB each, read_uncommitted and read_committed in turns")
	header()
	plain, err := b.fill(c, "isolation-plain", 1, readTotal/2)
	if err != nil {
		return err
	}
	committed, err := topic(c, "isolation-transactions", 1)
	if err != nil {
		return err
	}
	cl, err := transactional(c, committed)
	if err != nil {
		return err
	}
	defer cl.Close()
	for bytes := 0; bytes < readTotal/2; {
		r, err := producing(c, cl, committed, 1000, true, b.window)
		if err != nil {
			return err
		}
		bytes += r.bytes
	}
	if err := c.WaitApplied(time.Minute); err != nil {
		return err
	}
	if err := quiet(c); err != nil {
		return err
	}
	for _, t := range []struct{ name, what string }{{plain, "no transactions"}, {committed, "transactions of 1,000"}} {
		// The kernel counts CPU in steps of 10 ms, so each reads all a few times.
		const pairs, times = 8, 4
		var got [2][]result
		for round := range pairs + 1 {
			for i := range 2 {
				level := (i + round) % 2 // A B B A
				p := batch(16<<10, false)
				p.isolation = int8(level)
				var sum result
				for range times {
					r, err := fetchAll(c, ways(c)[0], t.name, 1, p, enough)
					if err != nil {
						return err
					}
					sum.add(r)
				}
				if round > 0 { // the first finds cold caches and connections
					got[level] = append(got[level], sum)
				}
			}
		}
		var sums [2]result
		for level, what := range []string{"read_uncommitted, ", "read_committed, "} {
			for _, r := range got[level] {
				sums[level].add(r)
			}
			sums[level].print(what + t.what)
		}
		ratios := func(of func(result) float64) float64 {
			var all []float64
			for i := range got[0] {
				all = append(all, of(got[1][i])/of(got[0][i]))
			}
			slices.SortFunc(all, cmp.Compare)
			return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
		}
		fmt.Printf("  read_committed beside read_uncommitted, %s: %.3f of the MB/s, %.3f of the CPU; medians of pairs: %.3f, %.3f (to reach: 0.95, 1.05)\n", t.what,
			sums[1].mbs()/sums[0].mbs(), sums[1].cpuPerMB()/sums[0].cpuPerMB(), ratios(result.mbs), ratios(result.cpuPerMB))
	}
	return nil
}
