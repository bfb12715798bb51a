package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/test/harness"
)

func (t *tiered) readOne(n *harness.Node, offset int64) error {
	w, err := harness.DialWire(n.Addr())
	if err != nil {
		return err
	}
	defer w.Close()
	w.Conn.SetDeadline(time.Now().Add(5 * time.Second))
	f, err := t.p.fetch(w, tieredTopic, 0, offset)
	if err == nil && f.records == 0 {
		err = errors.New("nothing came")
	}
	return err
}

// scan reads from an offset to another, or until ctx ends, from a node; then from the beginning
// again, if it is to go round. perSecond is in bytes; 0: as fast as it goes.
func (t *tiered) scan(ctx context.Context, n *harness.Node, from, to int64, round bool, perSecond float64) (r result, later int, err error) {
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		return r, 0, err
	}
	w := harness.NewWire(conn)
	defer w.Close()
	began := time.Now()
	for next := from; ctx.Err() == nil; {
		conn.SetDeadline(time.Now().Add(time.Minute))
		at := time.Now()
		f, err := t.p.fetch(w, tieredTopic, 0, next)
		code := harness.ErrorCode(0)
		if errors.As(err, &code) && code == storageError {
			later++
			select {
			case <-ctx.Done():
			case <-time.After(askAgainOld):
			}
			continue
		}
		if err != nil {
			return r, later, err
		}
		if f.records == 0 {
			return r, later, fmt.Errorf("nothing came from offset %d", next)
		}
		r.latency = append(r.latency, time.Since(at))
		r.records, r.bytes, next = r.records+f.records, r.bytes+f.bytes, f.next
		if next >= to {
			if !round {
				break
			}
			next = from
		}
		if perSecond > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(began.Add(time.Duration(float64(r.bytes) / perSecond * float64(time.Second))))):
			}
		}
	}
	r.took = time.Since(began)
	return r, later, nil
}

// scans are readers of the same offsets, each from another node.
func (t *tiered) scans(ctx context.Context, readers int, from, to int64, round bool, perSecond float64) (sum result, later int, err error) {
	results, laters, errs := make([]result, readers), make([]int, readers), make([]error, readers)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range readers {
		wg.Go(func() {
			results[i], laters[i], errs[i] = t.scan(ctx, t.c.Nodes[i%len(t.c.Nodes)], from, to, round, perSecond/float64(readers))
		})
	}
	wg.Wait()
	sum = together(results)
	sum.took = time.Since(began)
	for _, n := range laters {
		later += n
	}
	return sum, later, errors.Join(errs...)
}

// cold has the kernel forget what of the store's files it has in memory.
func (t *tiered) cold() ([]string, error) {
	paths, err := t.objects()
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// storeGives reads objects as a loop does that wants nothing else, several at a time.
func (t *tiered) storeGives(most int64, atOnce int) (r result, err error) {
	paths, err := t.cold()
	if err != nil {
		return r, err
	}
	work, errs := make(chan string), make([]error, atOnce)
	sizes := make([]int64, atOnce)
	before, began := selfCPU(), time.Now()
	var wg sync.WaitGroup
	for i := range atOnce {
		wg.Go(func() {
			var buf []byte
			for path := range work {
				if errs[i] == nil {
					buf, errs[i] = readInto(buf, path)
				}
				sizes[i] += int64(len(buf))
			}
		})
	}
	total := int64(0)
	for _, path := range paths {
		if total += sizeOf(path); total > most {
			break
		}
		work <- path
	}
	close(work)
	wg.Wait()
	r.took, r.used.cpu = time.Since(began), selfCPU()-before
	for _, n := range sizes {
		r.bytes += int(n)
	}
	return r, errors.Join(errs...)
}

// oldReads compares readers of what is in the store with a loop that does nothing but read its
// files, in turns. Neither finds them in memory.
func (t *tiered) oldReads() error {
	if _, err := t.status(); err != nil {
		return err
	}
	turns := t.rounds(2)
	perRecord := float64(sizesIn(t.store, ".batches")) / float64(t.first)
	to := min(t.first, int64(mostRead/perRecord))
	most := int64(float64(to) * perRecord)
	fmt.Printf("  old records, %.1f GB from the start, in %d turns; the kernel has none of the store's files in memory, the nodes' caches hold %.2g GB\n",
		float64(most)/1e9, turns, float64(t.cache)/1e9)
	header()
	rows := []struct {
		what    string
		readers int // 0: the store by itself
		atOnce  int
	}{{"the store's files, one at a time", 0, 1}, {"the store's files, four at a time", 0, 4}, {"one reader", 1, 0}, {"three readers, together", readersOld, 0}}
	got, laters := make([][]result, len(rows)), make([]int, len(rows))
	for turn := range turns {
		for i, row := range rows {
			progress("  old records, turn %d, %s", turn+1, row.what)
			var r result
			var err error
			if row.readers == 0 {
				r, err = t.storeGives(most, row.atOnce)
				r.records = r.bytes / recordSize
			} else {
				if _, err := t.cold(); err != nil {
					return err
				}
				before, uerr := used(t.c, nil)
				var later int
				r, later, err = t.scans(context.Background(), row.readers, 0, to, false, 0)
				after, aerr := used(t.c, nil)
				err = errors.Join(err, uerr, aerr)
				r.used.cpu, laters[i] = after.cpu-before.cpu, laters[i]+later
			}
			if err != nil {
				return err
			}
			got[i] = append(got[i], r)
		}
	}
	progress("")
	best := 0.0
	for i, row := range rows {
		sum := together(got[i])
		sum.print(row.what)
		if row.readers == 0 {
			best = max(best, sum.mbs())
			continue
		}
		t.all[fmt.Sprintf("tier/old_%d_mbs", row.readers)] = sum.mbs()
		fmt.Printf("    %.0f %% of what the store gives; asked again %d times in %d\n", 100*sum.mbs()/best, laters[i], len(sum.latency)+laters[i])
		t.reach(fmt.Sprintf("old_%d_share_percent", row.readers), fmt.Sprintf("old reads, %% of what the store gives, %d reader(s)", row.readers), 100*sum.mbs()/best, false, 70)
	}
	return nil
}

// front is what produce and a reader at the tail got in a window.
type front struct {
	produce result
	tail    []time.Duration // from sending a batch to having it read
}

// frontOf produces for a window, and reads what is produced beside it.
func (t *tiered) frontOf(perSecond float64) (f front, err error) {
	w, err := t.way()
	if err != nil {
		return f, err
	}
	if _, err := t.status(); err != nil {
		return f, err
	}
	start := t.end
	conn, err := w.dial()
	if err != nil {
		return f, err
	}
	reader := harness.NewWire(conn)
	defer reader.Close()
	var mu sync.Mutex // guards sent
	var sent []time.Time
	size := int64(t.p.records)
	l := load{topic: tieredTopic, partitions: 1, p: t.p, conns: 1, inFlight: 64, perSecond: perSecond, sending: func(at time.Time) {
		mu.Lock()
		sent = append(sent, at)
		mu.Unlock()
	}}
	produced := make(chan int64, 1) // the end, when it is over
	var failed error
	go func() {
		f.produce, failed = l.produce(t.c, w, t.window)
		mu.Lock()
		defer mu.Unlock()
		produced <- start + size*int64(len(sent))
	}()
	end := int64(-1)
	for next := start; end < 0 || next < end; {
		conn.SetDeadline(time.Now().Add(time.Minute))
		got, err := t.p.fetch(reader, tieredTopic, 0, next)
		now := time.Now()
		if err != nil {
			<-produced
			return f, errors.Join(err, failed)
		}
		if got.records > 0 {
			mu.Lock()
			for i := (next - start) / size; i < (got.next-start)/size; i++ {
				f.tail = append(f.tail, now.Sub(sent[i]))
			}
			mu.Unlock()
			next = got.next
		}
		select {
		case end = <-produced:
			if failed != nil {
				return f, failed
			}
		default:
		}
	}
	return f, nil
}

// beside measures produce and tail reads with and without readers that scan from the start, in
// turns; and, to tell what the tier costs from what readers cost, with ones that read as much a
// second of what is local.
func (t *tiered) beside() error {
	turns := t.rounds(3)
	fmt.Printf("  produce and a reader at the tail, in %d turns, windows of %v: alone, with three readers from the start, and with three readers of what is local,\n", turns, t.window)
	fmt.Println("  which read as many MB/s; 16 KB batches, 64 in flight, and a third as many a second; \"tail\" is from sending a batch to having read it")
	fmt.Printf("  %-44s %9s %11s %11s %11s %11s %9s\n", "", "MB/s", "p50", "p99", "tail p50", "tail p99", "old MB/s")
	if _, err := t.frontOf(0); err != nil { // what is cold is warmed
		return err
	}
	f, err := t.frontOf(0)
	if err != nil {
		return err
	}
	third := f.produce.perSecond() / float64(t.p.records) / 3
	old := map[string]float64{}
	type row struct {
		front
		other []result
	}
	for i, what := range []string{"as fast as it goes", "a third of that"} {
		perSecond := []float64{0, third}[i]
		got := map[string]*row{"alone": {}, "old": {}, "local": {}}
		for turn := range turns {
			names := []string{"alone", "old", "local"}
			if turn > 0 && turn%2 == 1 {
				names = []string{"old", "alone", "local"}
			}
			for _, name := range names {
				progress("  %s, turn %d, %s", what, turn+1, name)
				one, other, err := t.with(name, perSecond, old[name])
				if err != nil {
					return fmt.Errorf("%s, %s: %w", what, name, err)
				}
				r := got[name]
				r.produce = together([]result{r.produce, one.produce})
				r.tail = slices.Concat(r.tail, one.tail)
				r.other = append(r.other, other)
				old["local"] = together(got["old"].other).mbs() * 1e6
			}
		}
		progress("")
		for _, name := range []string{"alone", "old", "local"} {
			r, others := got[name], "-"
			if name != "alone" {
				others = fmt.Sprintf("%.1f", together(r.other).mbs())
			}
			fmt.Printf("  %-44s %9.1f %11s %11s %11s %11s %9s\n", what+map[string]string{"alone": ", alone", "old": ", readers from the start", "local": ", readers of what is local"}[name],
				r.produce.mbs(), r.produce.p(0.5), r.produce.p(0.99), ms(quantile(r.tail, 0.5)), ms(quantile(r.tail, 0.99)), others)
			key := fmt.Sprintf("tier/%s/%s/", []string{"full", "third"}[i], name)
			t.all[key+"mbs"], t.all[key+"tail_p99_ms"] = r.produce.mbs(), float64(quantile(r.tail, 0.99).Microseconds())/1000
			t.all[key+"tail_p50_ms"] = float64(quantile(r.tail, 0.5).Microseconds()) / 1000
		}
		for _, by := range []string{"alone", "local"} {
			with := map[string]string{"alone": "alone", "local": "with local ones"}[by]
			t.reach([]string{"full", "third"}[i]+"_slower_than_"+by+"_percent", fmt.Sprintf("produce with old readers, %% slower than %s, %s", with, what),
				slower(got["old"].produce.mbs(), got[by].produce.mbs()), true, 10)
		}
	}
	return nil
}

// with measures the front with readers beside it.
func (t *tiered) with(name string, perSecond, local float64) (f front, other result, err error) {
	if name == "alone" {
		f, err = t.frontOf(perSecond)
		return f, other, err
	}
	from, to, rate := int64(0), t.first, 0.0
	if name == "local" {
		// A quarter of what is local, the newest: all of it stays so while more is produced.
		from, to, rate = max(t.first, t.end-t.local/recordSize/4), t.end, local
	} else if _, err := t.cold(); err != nil {
		return f, other, err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var rerr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		other, _, rerr = t.scans(ctx, readersOld, from, to, true, rate)
	}()
	time.Sleep(t.window / 4) // the readers are at it
	f, err = t.frontOf(perSecond)
	stop()
	<-done
	return f, other, errors.Join(err, rerr)
}
