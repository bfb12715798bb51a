package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

const (
	compactedSegment = 100 << 20 // bytes; what is written to is compacted by neither system
	keyedRecords     = 16        // of a batch
	keySize          = 10        // digits of a key
	never            = "9223372036854775807"
)

// keyed makes batches of records of 1 KB whose keys are drawn at random: the same ones for each
// system. The values are cut out of noise.
type keyed struct {
	random *rand.Rand
	keys   int
	noise  []byte
	now    int64
	buf    []byte
}

func newKeyed(keys int) *keyed {
	noise := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	return &keyed{random: rand.New(rand.NewPCG(7, 7)), keys: keys, noise: noise, now: time.Now().UnixMilli()}
}

// next gives a batch, which is good until the next one.
func (k *keyed) next() []byte {
	var record [recordSize + 64]byte
	b := append(k.buf[:0], make([]byte, 61)...)
	for i := range keyedRecords {
		r := append(record[:0], 0, 0) // attributes, and the difference of time
		r = binary.AppendVarint(r, int64(i))
		r = binary.AppendVarint(r, keySize)
		r = fmt.Appendf(r, "%0*d", keySize, k.random.IntN(k.keys))
		r = binary.AppendVarint(r, recordSize)
		at := k.random.IntN(len(k.noise) - recordSize)
		r = append(append(r, k.noise[at:at+recordSize]...), 0)
		b = append(binary.AppendVarint(b, int64(len(r))), r...)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[12:], 1<<32-1) // no leader epoch
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], keyedRecords-1)
	binary.BigEndian.PutUint64(b[27:], uint64(k.now))
	binary.BigEndian.PutUint64(b[35:], uint64(k.now))
	for i := 43; i < 57; i++ {
		b[i] = 0xff // no producer
	}
	binary.BigEndian.PutUint32(b[57:], keyedRecords)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	k.buf = b
	return b
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bytesOf is what so many records have, of keys and values.
func bytesOf(records int64) float64 { return float64(records) * (recordSize + keySize) }

// fillKeyed produces so many records, in whole batches.
func fillKeyed(addr, topic string, k *keyed, records int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	w := harness.NewWire(conn)
	defer w.Close()
	room := make(chan struct{}, 64) // an element for each request that is not answered
	failed := make(chan error, 1)
	batches := (records + keyedRecords - 1) / keyedRecords
	go func() {
		for range batches {
			room <- struct{}{}
			conn.SetDeadline(time.Now().Add(time.Minute))
			if err := w.Send((payload{set: k.next()}).produceRequest(topic, 0)); err != nil {
				failed <- err
				return
			}
		}
	}()
	for i := range batches {
		_, answer, err := w.ReadFrame()
		if err == nil {
			err = payload{}.readProduce(answer)
		}
		if err != nil {
			select {
			case first := <-failed:
				err = first
			default:
			}
			return err
		}
		<-room
		if i%256 == 0 {
			progress("  produced %.1f of %.1f GB", bytesOf(i*keyedRecords)/1e9, bytesOf(records)/1e9)
		}
	}
	progress("")
	return nil
}

// cleaner is a system that compacts.
type cleaner struct {
	name      string
	processes []*harness.Process
	admin     *topicAdmin
	log       string // file that says what was compacted
	replicas  int16
	// cleaned reads the log: of a topic, up to which offset it is compacted and how long that took
	// by what the system says, in all passes; to is 0 while it is not.
	cleaned func(topic, log string) (to int64, took time.Duration)
	stop    func()
}

// dirty makes a topic with records that are not compacted before release.
func (c *cleaner) dirty(topic string, k *keyed, records int64) error {
	err := c.admin.create(topic, c.replicas, "cleanup.policy", "compact", "segment.bytes", strconv.Itoa(segmentFor(records)), "min.cleanable.dirty.ratio", "0.01",
		"min.compaction.lag.ms", never, "max.compaction.lag.ms", never, "compression.type", "producer")
	if err != nil {
		return err
	}
	addr, err := c.admin.leader(topic)
	if err != nil {
		return err
	}
	return fillKeyed(addr, topic, k, records)
}

// segmentFor is smaller for less, so that most of it is in closed segments.
func segmentFor(records int64) int {
	return int(min(compactedSegment, max(1<<20, bytesOf(records)/10)))
}

func (c *cleaner) release(topic string) error {
	return c.admin.alter(topic, "min.compaction.lag.ms", "0")
}

// waitCleaned waits until all closed segments are compacted, as the log says from a position on.
func (c *cleaner) waitCleaned(topic string, from int64, records int64) (to int64, took time.Duration, err error) {
	last := records - int64(1.1*float64(segmentFor(records))/(recordSize+keySize))
	err = harness.Eventually(30*time.Minute, func() bool {
		var text string
		if text, err = readFrom(c.log, from); err != nil {
			return true
		}
		to, took = c.cleaned(topic, text)
		for _, p := range c.processes {
			if !p.Running() {
				err = fmt.Errorf("%s has ended: %s", p.Name, p.Tail(3))
				return true
			}
		}
		return to > 0 && to >= last
	})
	return to, took, err
}

func readFrom(path string, at int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), err
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

var (
	trimaranCleaned = regexp.MustCompile(`msg=compacted .* to=(\d+) .* took=(\S+)`)
	kafkaCleaned    = regexp.MustCompile(`cleaned log (\S+)-0 \(dirty section = \[(\d+), (\d+)\]\)\s+[\d.,]+ MB of log processed in ([\d.,]+) seconds`)
)

func trimaranSays(_, log string) (to int64, took time.Duration) {
	for _, m := range trimaranCleaned.FindAllStringSubmatch(log, -1) {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		d, _ := time.ParseDuration(m[2])
		to, took = max(to, n), took+d
	}
	return to, took
}

func kafkaSays(topic, log string) (to int64, took time.Duration) {
	for _, m := range kafkaCleaned.FindAllStringSubmatch(log, -1) {
		if m[1] != topic {
			continue
		}
		n, _ := strconv.ParseInt(m[3], 10, 64)
		s, _ := strconv.ParseFloat(strings.ReplaceAll(m[4], ",", ""), 64)
		to, took = max(to, n), took+time.Duration(s*float64(time.Second))
	}
	return to, took
}

// trimaranCleaner starts nodes with further flags.
func (b *bench) trimaranCleaner(dir string, nodes int, flags ...string) (*cleaner, *harness.Cluster, error) {
	c, err := harness.Start(harness.Options{Nodes: nodes, Dir: dir, NoShim: true, Program: b.program, NodeArgs: append([]string{"--log-retention-check-interval", "500ms"}, flags...)})
	if err != nil {
		return nil, c, fmt.Errorf("%w\n%s", err, c.Logs(20))
	}
	k := &cleaner{name: "trimaran", log: c.Node(1).Log, replicas: int16(nodes), cleaned: trimaranSays, stop: func() { c.Close() }}
	for _, n := range c.Nodes {
		k.processes = append(k.processes, &n.Process)
	}
	k.admin, err = newAdmin(c.Addrs()...)
	return k, c, err
}

// cleanerLines have Kafka look for what is to be compacted each second; all else is as it comes:
// one thread, 128 MiB for keys, no bound for its I/O.
const cleanerLines = "min.insync.replicas=1\noffsets.topic.replication.factor=1\nlog.cleaner.backoff.ms=1000\n"

func kafkaCleaner(dir string) (*cleaner, error) {
	r, err := startBrokers(dir, 1, cleanerLines, "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage.internals.log.LogCleaner$CleanerThread=info")
	if r == nil {
		return nil, err
	}
	k := &cleaner{name: "kafka", processes: r.processes, log: filepath.Join(dir, "1.log"), replicas: 1, cleaned: kafkaSays, stop: func() { r.stop() }}
	if err == nil {
		err = r.kafkaTopics(1, nil)
	}
	if err == nil {
		k.admin, err = newAdmin(r.seeds...)
	}
	return k, err
}

// round is a compaction of a topic as it was measured.
type round struct {
	bytes         float64 // of what was compacted, keys and values
	took          time.Duration
	cpu           time.Duration // above what the system takes without it
	idle          float64       // cores
	before, after int64         // bytes of the topic's files
	wrote         int64         // bytes, as the kernel counts them
}

func (r round) mbs() float64 { return r.bytes / 1e6 / r.took.Seconds() }

// measure has a topic of so many records compacted.
func (c *cleaner) measure(topic string, k *keyed, records int64, files func() int64) (r round, err error) {
	if err := c.dirty(topic, k, records); err != nil {
		return r, err
	}
	syscall.Sync() // or what was written goes to the disk meanwhile
	if err := calm(c.processes); err != nil {
		return r, err
	}
	if r.idle, err = idleShare(c.processes, 3*time.Second); err != nil {
		return r, err
	}
	r.before = files()
	counter := harness.NewCounter(c.processes...)
	first, err := counter.Read()
	if err != nil {
		return r, err
	}
	from, began := sizeOf(c.log), time.Now()
	if err := c.release(topic); err != nil {
		return r, err
	}
	progress("  %s compacts", c.name)
	to, took, err := c.waitCleaned(topic, from, records)
	progress("")
	if err != nil {
		return r, err
	}
	last, err := counter.Read()
	if err != nil {
		return r, err
	}
	used := last.Minus(first)
	r.cpu = used.CPU - time.Duration(r.idle*float64(time.Since(began)))
	r.bytes, r.took, r.wrote, r.after = bytesOf(to), took, used.Written, files()
	return r, nil
}

// calm waits until processes have done what follows all that was asked of them.
func calm(all []*harness.Process) error {
	for range 60 {
		share, err := idleShare(all, time.Second)
		if err != nil || share < 0.25 {
			return err
		}
	}
	return errors.New("the servers are still busy with themselves after a minute")
}

// logFiles adds up what partitions' segments take on the disk.
func logFiles(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".log" || strings.Contains(path, "__cluster_metadata") {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += s.Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// compactions measures compaction beside Kafka's, and produce beside compaction.
func (b *bench) compactions(all figures) (aims []aim, err error) {
	if b.gb == 0 {
		b.gb = 10
	}
	if b.keys == 0 {
		b.keys = max(1000, int(100_000*b.gb))
	}
	records := int64(b.gb * 1e9 / (recordSize + keySize))
	fmt.Printf("\nCompaction of %g GB, %d records of %d keys, in one partition of one node [compaction]\n", b.gb, records, b.keys)
	fmt.Printf("  segments of %d MB; Trimaran with --compaction-rate 0, Kafka %s with log.cleaner.threads=1 and no bound of its I/O, 128 MiB for keys both;\n", segmentFor(records)/1e6, kafkaVersion)
	fmt.Println("  a tenth of it was compacted before, to warm; \"took\" is by what each says itself; CPU is that of the process above what it takes idle;")
	fmt.Println("  \"wrote\" is bytes that reached the disk for each byte of records, \"files\" what segments take on it before and after")
	fmt.Printf("  %-20s %9s %9s %10s %8s %8s %8s %16s\n", "", "MB/s", "took", "CPU ms/MB", "cores", "idle", "wrote", "files, MB")
	got := map[string]round{}
	for _, s := range []struct {
		name  string
		start func(dir string) (*cleaner, error)
	}{
		{"trimaran", func(dir string) (*cleaner, error) {
			k, _, err := b.trimaranCleaner(dir, 1, "--compaction-rate", "0")
			return k, err
		}},
		{"kafka", kafkaCleaner},
	} {
		if s.name == "kafka" && b.noKafka {
			continue
		}
		r, err := b.compactionOf(s.name, s.start, records)
		if err != nil {
			if s.name == "kafka" { // it cannot be had everywhere
				fmt.Printf("  %-20s left out: %v\n", s.name, err)
				continue
			}
			return nil, err
		}
		got[s.name] = r
		fmt.Printf("  %-20s %9.1f %9s %10.2f %8.2f %8.3f %8.2f %16s\n", s.name, r.mbs(), r.took.Round(100*time.Millisecond), perMB(r.cpu, r.bytes),
			r.cpu.Seconds()/r.took.Seconds(), r.idle, float64(r.wrote)/r.bytes, fmt.Sprintf("%d → %d", r.before/1e6, r.after/1e6))
		name := "compaction/" + s.name
		all[name+"/mbs"], all[name+"/cpu_ms_per_mb"] = r.mbs(), perMB(r.cpu, r.bytes)
	}
	if k, ok := got["kafka"]; ok {
		t := got["trimaran"]
		fmt.Printf("  Trimaran beside Kafka: %.2f of the MB/s, %.2f of the CPU\n", t.mbs()/k.mbs(), perMB(t.cpu, t.bytes)/perMB(k.cpu, k.bytes))
	}
	return b.produceBeside(all)
}

// compactionOf measures one system.
func (b *bench) compactionOf(name string, start func(dir string) (*cleaner, error), records int64) (r round, err error) {
	dir, remove, err := b.folder(name)
	if err != nil {
		return r, err
	}
	defer remove()
	c, err := start(dir)
	if c != nil {
		defer c.stop()
	}
	if err != nil {
		return r, err
	}
	defer c.admin.Close()
	k := newKeyed(b.keys)
	if _, err := c.measure("warm", k, records/10, func() int64 { return 0 }); err != nil {
		return r, fmt.Errorf("warm-up: %w", err)
	}
	k = newKeyed(b.keys)
	rest := logFiles(dir)
	return c.measure("measured", k, records, func() int64 { return logFiles(dir) - rest })
}

// produceBeside measures produce with and without a compaction at the default rate, in turns: to
// one node alone, and to three, all of which compact.
func (b *bench) produceBeside(all figures) (aims []aim, err error) {
	turns := b.rounds(4)
	// Each byte is read twice, and some are written. So it takes longer than the windows do.
	bytes := float64(b.rate) / 2 * 1.5 * (2*b.window + 2*time.Second).Seconds()
	fmt.Printf("\nProduce beside compaction, --compaction-rate %.0f MiB, in %d turns, windows of %v\n", float64(b.rate)/(1<<20), turns, b.window)
	fmt.Printf("  16 KB batches to one partition, 64 in flight, and then a third as many a second; a turn compacts %.0f MB meanwhile\n", bytes/1e6)
	for _, nodes := range []int{1, 3} {
		more, err := b.produceBesideOn(all, nodes, turns, int64(bytes/(recordSize+keySize)))
		if err != nil {
			return nil, fmt.Errorf("on %d nodes: %w", nodes, err)
		}
		aims = append(aims, more...)
	}
	return aims, nil
}

func (b *bench) produceBesideOn(all figures, nodes, turns int, records int64) (aims []aim, err error) {
	dir, remove, err := b.folder("beside")
	if err != nil {
		return nil, err
	}
	defer remove()
	k, c, err := b.trimaranCleaner(dir, nodes, "--compaction-rate", strconv.FormatInt(b.rate, 10))
	defer c.Close()
	if err != nil {
		return nil, err
	}
	defer k.admin.Close()
	fmt.Printf("  %s\n", map[bool]string{true: "one node", false: "three nodes, each of which compacts"}[nodes == 1])
	header()
	paced := 0.0 // requests a second
	var got [2][2][]result
	for turn := range turns {
		dirty, front := fmt.Sprintf("dirty-%d", turn), fmt.Sprintf("front-%d", turn)
		if err := k.dirty(dirty, newKeyed(b.keys), records); err != nil {
			return nil, err
		}
		if err := k.admin.create(front, k.replicas, "segment.bytes", "67108864"); err != nil {
			return nil, err
		}
		addr, err := k.admin.leader(front)
		if err != nil {
			return nil, err
		}
		w := way{name: "TCP", dial: func() (net.Conn, error) { return net.Dial("tcp", addr) }}
		l := load{topic: front, partitions: 1, p: batch(16<<10, false), conns: 1, inFlight: 64}
		if _, err := l.produce(c, w, b.window/2); err != nil {
			return nil, err
		}
		if paced == 0 {
			r, err := l.produce(c, w, b.window)
			if err != nil {
				return nil, err
			}
			paced = r.perSecond() / float64(l.p.records) / 3
		}
		both := func(with int) error {
			for i := range 2 {
				if l.perSecond = 0; i == 1 {
					l.perSecond = paced
				}
				r, err := l.produce(c, w, b.window)
				if err != nil {
					return err
				}
				r.used.wrote = r.used.wrote * 3 / int64(nodes) // it is printed as that of three
				got[i][with] = append(got[i][with], r)
			}
			return nil
		}
		during := func() error { return k.during(c, dirty, func() error { return both(1) }) }
		syscall.Sync()
		if err := calm(k.processes); err != nil {
			return nil, err
		}
		steps := []func() error{func() error { return both(0) }, during}
		if turn%2 == 1 { // A B B A
			steps[0], steps[1] = steps[1], steps[0]
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
		for _, t := range []string{dirty, front} {
			if err := drop(c, t); err != nil {
				return nil, err
			}
		}
	}
	name := fmt.Sprintf("compaction/beside/%d", nodes)
	for i, what := range []string{"as fast as it goes", "a third of that"} {
		without, with := together(got[i][0]), together(got[i][1])
		without.print(what + ", without")
		with.print(what + ", with")
		if i == 0 {
			fmt.Printf("    MB/s of single windows: %s without, %s with\n", spread(got[i][0]), spread(got[i][1]))
		}
		all[name+[]string{"/full", "/third"}[i]+"_slower_percent"] = slower(with.mbs(), without.mbs())
		if i == 0 {
			aims = append(aims, aim{what: fmt.Sprintf("produce beside compaction, %% slower, %d node(s)", nodes), figure: slower(with.mbs(), without.mbs()), most: true, target: 10, known: true})
		}
	}
	return aims, nil
}

// during releases a topic, and calls f while it is compacted on the first node.
func (c *cleaner) during(cluster *harness.Cluster, topic string, f func() error) error {
	var from []int64
	for _, n := range cluster.Nodes {
		from = append(from, sizeOf(n.Log))
	}
	// Nodes log that a compaction is decided, and then that it is over: that they are at it shows
	// in what they read.
	before := readSoFar(c.processes)
	if err := c.release(topic); err != nil {
		return err
	}
	err := harness.Eventually(time.Minute, func() bool {
		for i, now := range readSoFar(c.processes) {
			if now-before[i] < 8<<20 {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("the compaction of %s has not begun: %w", topic, err)
	}
	if err := f(); err != nil {
		return err
	}
	for i, n := range cluster.Nodes {
		text, err := readFrom(n.Log, from[i])
		if err != nil {
			return err
		}
		if to, _ := trimaranSays(topic, text); to > 0 {
			return fmt.Errorf("the compaction was over on %s before the windows were: shorter ones are needed (-seconds)", n.ID)
		}
	}
	progress("  waiting for the end of the compaction")
	defer progress("")
	return harness.Eventually(10*time.Minute, func() bool {
		for i, n := range cluster.Nodes {
			text, err := readFrom(n.Log, from[i])
			if err != nil || !strings.Contains(text, "msg=compacted") {
				return false
			}
		}
		return true
	})
}

// readSoFar is how many bytes each process has read, from files and sockets.
func readSoFar(all []*harness.Process) (bytes []int64) {
	for _, p := range all {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.Pid()))
		_, rest, _ := strings.Cut(string(text), "rchar: ")
		rest, _, _ = strings.Cut(rest, "\n")
		n, _ := strconv.ParseInt(rest, 10, 64)
		bytes = append(bytes, n)
	}
	return bytes
}
