package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Transactions of a client: how many, and records in each. Every third is aborted.
const (
	transactionsInAll = 21
	transactionSize   = 40
)

// transactional makes the rows of clients that have a transactional producer.
func transactional(rows []row) (out []row) {
	for _, r := range rows {
		if !r.transactions {
			continue
		}
		r.name += " transactions"
		r.run = transact
		out = append(out, r)
	}
	return out
}

// transact has the client write transactions, commit most and abort some. What is read back, with
// read_committed by franz-go and by the client itself, are the records of those that were committed
// and of no others; a client of 0.8 gets all, and no markers. In the pass with kills the leader of
// partition 0 dies in the middle of one. A client that cannot go on then is started once more with
// its transactional id, and what became of the commit that failed is whole or not there.
func transact(ctx context.Context, a *attempt) error {
	a.topic = harness.Topic("transactions-" + strings.NewReplacer(" ", "-", "/", "-", "@", "").Replace(a.name))
	if err := a.makeTopic(ctx, a.topic, partitions); err != nil {
		return err
	}
	if a.pass == "kill" {
		n, err := a.cluster.Leader(a.topic, 0, a.step)
		if err != nil {
			return err
		}
		a.first = n
	}
	w := &transactionWriter{attempt: a, ends: make([]string, transactionsInAll)}
	for n := range transactionsInAll {
		if err := w.write(ctx, n); err != nil {
			return err
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	a.restart.Wait()
	if a.killErr != nil {
		return a.killErr
	}
	return w.readBack(ctx)
}

// transactionWriter drives the client's step transact.
type transactionWriter struct {
	*attempt
	client *client
	heard  int      // ends of transactions that the client has told
	ends   []string // of each transaction: committed, aborted, or unknown
}

// write is transaction n.
func (w *transactionWriter) write(ctx context.Context, n int) (err error) {
	if w.client == nil {
		if w.client, err = w.startClient(ctx, "transact", w.args("transact", w.topic+"-id")...); err != nil {
			return err
		}
		w.heard = 0
	}
	end, told := "commit", "committed"
	if n%3 == 2 {
		end, told = "abort", "aborted"
	}
	var records strings.Builder
	for i := range transactionSize {
		fmt.Fprintf(&records, "key-%d\t%s\n", i, transactionValue(n, i))
	}
	half := records.String()[:records.Len()/2]
	half = half[:strings.LastIndexByte(half, '\n')+1]
	_, err = w.client.stdin.Write([]byte(half))
	if err == nil && w.pass == "kill" && n == transactionsInAll/3 {
		w.kill9()
	}
	if err == nil {
		_, err = fmt.Fprintf(w.client.stdin, "%s%s\n", records.String()[len(half):], end)
	}
	var last error
	if err == nil {
		w.heard++
		last = harness.Eventually(w.deadline(), func() bool {
			return w.client.ended() != nil || w.client.toldEnds() >= w.heard
		})
	}
	switch {
	case err == nil && last == nil && w.client.ended() == nil:
		w.ends[n] = told
		return nil
	case w.pass != "kill":
		return errors.Join(fmt.Errorf("transaction %d", n), err, last, w.client.ended())
	}
	// Only a commit may have happened without a word.
	w.ends[n] = "unknown"
	if end == "abort" {
		w.ends[n] = "aborted"
	}
	w.note("transaction %d ended the client: %v", n, w.client.ended())
	w.client.kill()
	<-w.client.done
	w.client = nil
	return nil
}

// toldEnds is how many ends of transactions the client has told.
func (c *client) toldEnds() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.said {
		if s == "committed" || s == "aborted" {
			n++
		}
	}
	return n
}

// close ends the client.
func (w *transactionWriter) close() error {
	if w.client == nil {
		return nil
	}
	if err := w.client.stdin.Close(); err != nil {
		return err
	}
	return w.client.wait(w.deadline())
}

// transactionValue is the value of record i of transaction n.
func transactionValue(n, i int) string { return fmt.Sprintf("t%d-%d", n, i) }

// lastValue is that of the record behind all others of a partition.
const lastValue = "last"

// readBack holds the topic against what the client told.
func (w *transactionWriter) readBack(ctx context.Context) error {
	if err := w.writeLast(ctx); err != nil {
		return err
	}
	committed, err := w.readWith(ctx, append(harness.Seeds(w.driverAddr), kgo.FetchIsolationLevel(kgo.ReadCommitted())))
	if err != nil {
		return fmt.Errorf("read by franz-go with read_committed: %w", err)
	}
	for n, told := range w.ends {
		times := 0
		for i := range transactionSize {
			v := transactionValue(n, i)
			if committed[v] > 1 {
				return fmt.Errorf("%s is there %d times", v, committed[v])
			}
			times += committed[v]
		}
		want := map[string][]int{"committed": {transactionSize}, "aborted": {0}, "unknown": {0, transactionSize}}[told]
		if times != want[0] && times != want[len(want)-1] {
			return fmt.Errorf("transaction %d is %s, and %d of its %d records are there", n, told, times, transactionSize)
		}
	}
	opts := harness.Old(w.driverAddr)
	if w.against != "" {
		opts = harness.Seeds(w.driverAddr) // Kafka 4 does not serve those of 0.8
	}
	all, err := w.readWith(ctx, opts)
	if err != nil {
		return fmt.Errorf("read by a client of 0.8: %w", err)
	}
	for v, n := range committed {
		if all[v] < n {
			return fmt.Errorf("a client of 0.8 was not given %s", v)
		}
	}
	if len(all) <= len(committed) {
		return errors.New("nothing that was aborted is in the log: nothing was tried")
	}
	return w.readByClient(ctx, committed)
}

// writeLast ends each partition with a record that belongs to no transaction.
func (w *transactionWriter) writeLast(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.deadline())
	defer cancel()
	cl, err := kgo.NewClient(append(harness.Seeds(w.driverAddr), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for p := range int32(partitions) {
		r := &kgo.Record{Topic: w.topic, Partition: p, Key: []byte("key"), Value: []byte(lastValue)}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// readWith reads the topic to the last record of each partition and counts values.
func (w *transactionWriter) readWith(ctx context.Context, opts []kgo.Opt) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, w.deadline())
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		from[p] = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.topic: from}))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	got := map[string]int{}
	for got[lastValue] < partitions {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d of %d partitions are read to their end: %w (%v)", got[lastValue], partitions, ctx.Err(), f.Err())
		}
		f.EachRecord(func(r *kgo.Record) { got[string(r.Value)]++ })
	}
	return got, nil
}

// readByClient has the client read what is committed.
func (w *transactionWriter) readByClient(ctx context.Context, committed map[string]int) error {
	want := 0
	for _, n := range committed {
		want += n
	}
	c, err := w.startClient(ctx, "committed", w.args("committed", want)...)
	if err != nil {
		return err
	}
	c.stdin.Close()
	if err := c.wait(w.deadline()); err != nil {
		return fmt.Errorf("%w (%d of %d records came)", err, c.count(), want)
	}
	got := map[string]int{}
	for _, r := range c.got() {
		got[r.value]++
	}
	for v, n := range committed {
		if got[v] != n {
			return fmt.Errorf("the client was given %s %d times, and it is committed %d times", v, got[v], n)
		}
	}
	for v := range got {
		if committed[v] == 0 {
			return fmt.Errorf("the client was given %q, which is not committed", v)
		}
	}
	return nil
}
