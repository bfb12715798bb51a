package main

import (
	"bytes"
	"cmp"
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
	"syscall"
	"time"

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
