package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trimaran-io/trimaran/test/harness"
)

const (
	tieredTopic = "tiered"
	readersOld  = 3
	// storageError is what a node answers while what is old does not come (KAFKA_STORAGE_ERROR).
	storageError = harness.ErrorCode(56)
	// askAgainOld is the pause of a reader that was told so; librdkafka's and Java's are 100 ms.
	askAgainOld = 20 * time.Millisecond
	// mostRead is what one reader reads of what is old, at most.
	mostRead = 4 << 30
)

// tiered is a cluster with a partition most of which is in a store.
type tiered struct {
	*bench
	c          *harness.Cluster
	admin      *topicAdmin
	processes  []*harness.Process
	store      string // folder
	local      int64  // bytes of the local limit
	cache      int64  // bytes of a node's cache
	p          payload
	all        figures
	aims       []aim
	leader     *harness.Node
	end, first int64 // offsets: behind all, and the first one that is local
}

// tiers measures a partition of which a twentieth is local.
func (b *bench) tiers(all figures) (aims []aim, err error) {
	if b.gb == 0 {
		b.gb = 20
	}
	dir, remove, err := b.folder("tier")
	if err != nil {
		return nil, err
	}
	defer remove()
	t := &tiered{bench: b, all: all, store: filepath.Join(dir, "store"), local: int64(b.gb * 1e9 / 20), p: batch(16<<10, false)}
	t.cache = max(16<<20, t.local)
	segment := max(1<<20, min(64<<20, t.local/8))
	t.c, err = harness.Start(harness.Options{Dir: dir, NoShim: true, Program: b.program, NodeArgs: []string{
		"--tier-to", "file://" + t.store, "--tier-cache-bytes", strconv.FormatInt(t.cache, 10),
		"--log-segment-bytes", strconv.FormatInt(segment, 10), "--log-retention-check-interval", "1s",
	}})
	defer t.c.Close()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, t.c.Logs(20))
	}
	for _, n := range t.c.Nodes {
		t.processes = append(t.processes, &n.Process)
	}
	if t.admin, err = newAdmin(t.c.Addrs()...); err != nil {
		return nil, err
	}
	defer t.admin.Close()
	fmt.Printf("\nA partition of %g GB of which %.2g GB are local, the others in a folder [tier]\n", b.gb, float64(t.local)/1e9)
	fmt.Printf("  three nodes, replication factor 3, segments of %d MB, a cache of %.2g GB on each node\n", segment/1e6, float64(t.cache)/1e9)
	for _, step := range []func() error{t.uploads, t.fill, t.restarts, t.disk, t.oldReads, t.beside, t.disk} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, t.c.Logs(10))
		}
	}
	return t.aims, nil
}

// reach notes a figure, and what it should be.
func (t *tiered) reach(name, what string, figure float64, most bool, target float64) {
	t.all["tier/"+name] = figure
	t.aims = append(t.aims, aim{what: what, figure: figure, most: most, target: target, known: true})
}

// way leads to the partition's leader.
func (t *tiered) way() (way, error) {
	var err error
	if t.leader, err = t.c.Leader(tieredTopic, 0, time.Minute); err != nil {
		return way{}, err
	}
	addr := t.leader.Addr()
	return way{name: "TCP", dial: func() (net.Conn, error) { return net.Dial("tcp", addr) }}, nil
}

// produce writes about so many bytes; where more than a local limit is still to go to the store it
// waits, if tiered.
func (t *tiered) produce(bytes int64, tiered bool) error {
	w, err := t.way()
	if err != nil {
		return err
	}
	l := load{topic: tieredTopic, partitions: 1, p: t.p, conns: 1, inFlight: 64}
	for done := int64(0); done < bytes; {
		r, err := l.produce(t.c, w, min(t.window, time.Second/2))
		if err != nil {
			return err
		}
		done += int64(r.bytes)
		progress("  produced %.1f of %.1f GB", float64(done)/1e9, float64(bytes)/1e9)
		if tiered {
			if err := t.waitTiered(t.local); err != nil {
				return err
			}
		}
	}
	progress("")
	return t.c.WaitApplied(time.Minute)
}

// status is how it stands with the tier.
func (t *tiered) status() (waiting int64, err error) {
	s, err := t.c.Node(1).Status()
	if err != nil {
		return 0, err
	}
	for _, topic := range s.Topics {
		if topic.Name == tieredTopic && len(topic.Partitions) == 1 && topic.Partitions[0].Tier != nil {
			p := topic.Partitions[0]
			t.end, t.first = p.HighWatermark, p.Tier.LocalStart
			return p.Tier.Waiting, nil
		}
	}
	return 0, errors.New("nothing is in the tier")
}

// waitTiered waits until at most so many bytes are still to go to the store.
func (t *tiered) waitTiered(most int64) error {
	waiting := int64(0)
	err := harness.Eventually(10*time.Minute, func() (ok bool) {
		var err error
		waiting, err = t.status()
		return err == nil && waiting <= most
	})
	if err != nil {
		return fmt.Errorf("%d bytes still have to go to the store: %w", waiting, err)
	}
	return nil
}

// uploads measures what it costs to bring to the store what is there.
func (t *tiered) uploads() error {
	if err := t.admin.create(tieredTopic, 3, "retention.ms", "-1"); err != nil {
		return err
	}
	if err := t.c.WaitTopic(tieredTopic, 1); err != nil {
		return err
	}
	if err := t.produce(int64(t.gb*1e9/10), false); err != nil {
		return err
	}
	syscall.Sync()
	if err := calm(t.processes); err != nil {
		return err
	}
	idle, err := idleShare(t.processes, 3*time.Second)
	if err != nil {
		return err
	}
	before, err := cpuOf(t.processes)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := t.admin.alter(tieredTopic, "remote.storage.enable", "true", "local.retention.bytes", strconv.FormatInt(t.local, 10)); err != nil {
		return err
	}
	// By the store's folder: to ask the nodes is work for them.
	size, since := int64(0), time.Now()
	for time.Since(since) < 3*time.Second {
		time.Sleep(100 * time.Millisecond)
		if now := sizesIn(t.store, ".batches"); now != size || size == 0 && time.Since(began) < time.Minute {
			size, since = now, time.Now()
			progress("  %.1f GB in the store", float64(size)/1e9)
		}
	}
	progress("")
	after, err := cpuOf(t.processes)
	if err != nil {
		return err
	}
	if err := t.waitTiered(0); err != nil {
		return err
	}
	cpu := after - before - time.Duration(idle*float64(time.Since(began)))
	plain, sum, err := t.plainUpload()
	if err != nil {
		return err
	}
	fmt.Printf("  uploads: %.0f MB, %.0f MB/s, CPU of all nodes %.2f ms/MB above idle\n", float64(size)/1e6, float64(size)/1e6/since.Sub(began).Seconds(), perMB(cpu, float64(size)))
	fmt.Printf("    a program that writes and syncs the same files, reads them back and compares: %.2f ms/MB; SHA-256 of them: %.2f ms/MB\n", plain, sum)
	t.all["tier/upload_plain_cpu_ms_per_mb"], t.all["tier/sha256_cpu_ms_per_mb"] = plain, sum
	t.reach("upload_cpu_ms_per_mb", "uploads, CPU ms for each MB", perMB(cpu, float64(size)), true, 1)
	return nil
}

// objects are the files in the store that have records, in the order of their offsets.
func (t *tiered) objects() (paths []string, err error) {
	err = filepath.WalkDir(t.store, func(path string, d os.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".batches" {
			paths = append(paths, path)
		}
		return err
	})
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) })
	return paths, err
}

// plainUpload is what a loop takes, in ms for each MB, for which there is nothing but the store;
// and the sums of what it puts there.
func (t *tiered) plainUpload() (plain, sum float64, err error) {
	paths, err := t.objects()
	if err != nil {
		return 0, 0, err
	}
	to := t.store + "-plain"
	if err := os.Mkdir(to, 0o777); err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(to)
	var buf, back []byte
	var putting, summing time.Duration
	total := 0
	for i, path := range paths[:min(len(paths), 64)] {
		if buf, err = readInto(buf, path); err != nil {
			return 0, 0, err
		}
		total += len(buf)
		took, err := cpuOfSelf(func() error {
			file := filepath.Join(to, strconv.Itoa(i))
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			_, err = f.Write(buf)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			if back, err = readInto(back, file); err == nil && !bytes.Equal(back, buf) {
				err = errors.New("what was written cannot be read back")
			}
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		putting += took
		took, _ = cpuOfSelf(func() error { sha256.Sum256(buf); return nil })
		summing += took
	}
	return perMB(putting, float64(total)), perMB(summing, float64(total)), nil
}

// readInto reads a file into a buffer, which grows.
func readInto(buf []byte, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return buf, err
	}
	buf = slices.Grow(buf[:0], int(info.Size()))[:info.Size()]
	_, err = io.ReadFull(f, buf)
	return buf, err
}

// fill writes what is left of the partition.
func (t *tiered) fill() error {
	if err := t.produce(int64(t.gb*9e8), true); err != nil {
		return err
	}
	if err := t.waitTiered(0); err != nil {
		return err
	}
	// Replicas let go of what is there in their own time.
	return harness.Eventually(time.Minute, func() bool {
		for _, n := range t.c.Nodes {
			if dataOf(n).log > t.local+2*max(64<<20, t.local/8) {
				return false
			}
		}
		return true
	})
}

// data is what a node has on the disk, bytes.
type data struct{ log, cache, all int64 }

func dataOf(n *harness.Node) (d data) {
	_ = filepath.WalkDir(n.Data, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		s, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		switch d.all += s.Blocks * 512; {
		case strings.HasPrefix(path, filepath.Join(n.Data, "partitions")):
			d.log += s.Blocks * 512
		case filepath.Ext(path) == ".piece":
			d.cache += s.Blocks * 512
		}
		return nil
	})
	return d
}

func sizesIn(dir, ext string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ext {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// disk prints what is where.
func (t *tiered) disk() error {
	var most data
	for _, n := range t.c.Nodes {
		if d := dataOf(n); d.all > most.all {
			most = d
		}
	}
	stored := sizesIn(t.store, ".batches")
	bound := 1.5*float64(t.local) + float64(t.cache) + 256<<20
	fmt.Printf("  disk: the node with most has %.0f MB: %.0f of partitions and groups, %.0f of the cache; the store %.0f MB\n",
		float64(most.all)/1e6, float64(most.log)/1e6, float64(most.cache)/1e6, float64(stored)/1e6)
	t.all["tier/disk_mb"] = float64(most.all) / 1e6
	t.aims = slices.DeleteFunc(t.aims, func(a aim) bool { return strings.HasPrefix(a.what, "disk of a node") })
	t.reach("disk_of_bound", "disk of a node, of local limit, cache and half as much, and 256 MB", float64(most.all)/bound, true, 1)
	return nil
}

// restarts measures how long the partition's leader takes to serve again.
func (t *tiered) restarts() error {
	var ready, served []time.Duration
	for range t.rounds(3) {
		if _, err := t.way(); err != nil {
			return err
		}
		if _, err := t.status(); err != nil {
			return err
		}
		n := t.leader
		if code, err := n.Terminate(time.Minute); err != nil || code != 0 {
			return fmt.Errorf("%s ended with %d: %w", n.ID, code, err)
		}
		began := time.Now()
		if err := n.Start(); err != nil {
			return err
		}
		if err := again(n.Ready); err != nil {
			return err
		}
		ready = append(ready, time.Since(began))
		// The newest record and the oldest.
		for _, offset := range []int64{t.end - 1, 0} {
			if err := again(func() error { return t.readOne(n, offset) }); err != nil {
				return fmt.Errorf("%s does not give offset %d: %w", n.ID, offset, err)
			}
		}
		served = append(served, time.Since(began))
	}
	fmt.Printf("  restart of the leader: ready after %s, the oldest and the newest record read from it after %s (worst of %d: %s)\n",
		ms(quantile(ready, 0.5)), ms(quantile(served, 0.5)), len(served), ms(slices.Max(served)))
	t.reach("restart_s", "restart of a node to serving, s", slices.Max(served).Seconds(), true, 3)
	return nil
}

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
