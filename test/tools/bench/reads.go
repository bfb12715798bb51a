package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// This file measures what is read: consuming beside a program that does nothing but read the same
// files and write them to a socket, and the shim beside TCP.

const (
	// plainServer, set in the environment to paths of files, makes this program that one.
	plainServer = "TRIMARAN_BENCH_PLAIN_SERVER"
	// plainHow says whether the plain server copies or calls sendfile.
	plainHow = "TRIMARAN_BENCH_PLAIN_HOW"
	// readSize is what one fetch asks for, and one read of the plain server.
	readSize = 1 << 20
	// plainPiece is what the plain server reads and writes at once: what is written then is still
	// in the processor's cache.
	plainPiece = 256 << 10
	// readTotal is what is written to be read, in bytes of records.
	readTotal = 256 << 20
	// readRounds is how often the ways are measured in turns.
	readRounds = 3
)

// servePlainly answers requests of 16 bytes, the number of a file of paths, a position and a size,
// with 4 bytes of size and so much of that file: preads into one buffer that stays and writes, or
// one sendfile, until the client closes. It prints its address first. That is what a fetch cannot
// do without.
func servePlainly(paths []string, how string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	var files []*os.File
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files = append(files, f)
	}
	var request [16]byte
	buf := make([]byte, 4+plainPiece)
	for {
		if _, err := io.ReadFull(conn, request[:]); err != nil {
			return nil
		}
		f := files[binary.BigEndian.Uint32(request[:])]
		at := int64(binary.BigEndian.Uint64(request[4:]))
		size := min(int(binary.BigEndian.Uint32(request[12:])), readSize)
		binary.BigEndian.PutUint32(buf, uint32(size))
		if how == "sendfile" {
			if _, err := conn.Write(buf[:4]); err != nil {
				return err
			}
			if _, err := f.Seek(at, io.SeekStart); err != nil {
				return err
			}
			// TCPConn's ReadFrom calls sendfile.
			if _, err := io.CopyN(conn, f, int64(size)); err != nil {
				return err
			}
			continue
		}
		for head := 4; size > 0; head = 0 {
			n := min(size, plainPiece)
			if _, err := f.ReadAt(buf[head:head+n], at); err != nil {
				return err
			}
			if _, err := conn.Write(buf[:head+n]); err != nil {
				return err
			}
			at, size = at+int64(n), size-n
		}
	}
}

// plainly reads so many bytes of files through such a server, as the bench's client fetches: in
// pieces of 1 MB, from one file after the other.
func plainly(files []segmentFile, how string, total int) (r result, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.path)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), plainServer+"="+strings.Join(paths, ":"), plainHow+"="+how)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	defer cmd.Wait()
	var addr string
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		return r, err
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return r, err
	}
	wire := harness.NewWire(conn)
	defer wire.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	start := time.Now()
	for at := int64(0); r.bytes < total; at += readSize {
		some := false
		for i, f := range files {
			size := min(f.size-at, readSize)
			if size <= 0 {
				continue
			}
			some = true
			var request [16]byte
			binary.BigEndian.PutUint32(request[:], uint32(i))
			binary.BigEndian.PutUint64(request[4:], uint64(at))
			binary.BigEndian.PutUint32(request[12:], uint32(size))
			began := time.Now()
			if err := wire.Send(request[:]); err != nil {
				return r, err
			}
			if _, _, err := wire.ReadFrame(); err != nil {
				return r, err
			}
			r.latency = append(r.latency, time.Since(began))
			r.bytes += int(size)
		}
		if !some {
			at = -readSize // once more from the start
		}
	}
	r.took = time.Since(start)
	r.records = r.bytes / recordSize
	conn.Close()
	if err := cmd.Wait(); err != nil {
		return r, err
	}
	r.used.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r, nil
}

// segmentFile is a segment that a node has on its disk.
type segmentFile struct {
	path string
	size int64 // bytes that were written, about
}

// segments gives the first node's segments of the newest so many partitions that have some MB.
func segments(c *harness.Cluster, most int) (files []segmentFile, err error) {
	paths, err := filepath.Glob(filepath.Join(c.Node(1).Data, "partitions", "*", "*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		f := segmentFile{path: path}
		if f.size, err = written(path); err != nil {
			return nil, err
		}
		if f.size > readSize {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no segment is there")
	}
	return files[:min(len(files), most)], nil
}

// written is where a segment's zeros begin, at which it was only allocated.
func written(path string) (int64, error) {
	b, err := os.ReadFile(path)
	return int64(len(bytes.TrimRight(b, "\x00"))), err
}

// byCPU gives the one in the middle by CPU per MB.
func byCPU(all []result) result {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b result) int { return cmp.Compare(a.cpuPerMB(), b.cpuPerMB()) })
	return sorted[len(sorted)/2]
}

// fill produces about total bytes of records to a topic's partitions.
func (b *bench) fill(c *harness.Cluster, name string, partitions, total int) (string, error) {
	t, err := topic(c, name, partitions)
	if err != nil {
		return "", err
	}
	l := load{topic: t, partitions: partitions, p: batch(16<<10, false), conns: 2, inFlight: 64}
	for written := 0; written < total; {
		r, err := l.produce(c, ways(c)[0], b.window/2)
		if err != nil {
			return "", err
		}
		written += r.bytes
	}
	return t, c.WaitApplied(time.Minute)
}

// consuming compares what a fetch costs with what the plain server takes for the same bytes, both
// in turns; what three idle nodes take in that time is part of it.
func (b *bench) consuming() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		header()
		for _, n := range []int{1, 100} {
			t, err := b.fill(c, fmt.Sprintf("consume-%d", n), n, readTotal)
			if err != nil {
				return err
			}
			if err := quiet(c); err != nil {
				return err
			}
			files, err := segments(c, n)
			if err != nil {
				return err
			}
			var fetch, copied, sent []result
			for range readRounds {
				for _, way := range []struct {
					how string
					to  *[]result
				}{{"copy", &copied}, {"sendfile", &sent}} {
					r, err := plainly(files, way.how, 2*readTotal)
					if err != nil {
						return err
					}
					*way.to = append(*way.to, r)
				}
				r, err := fetchAll(c, ways(c)[0], t, n, batch(16<<10, false), enough)
				if err != nil {
					return err
				}
				fetch = append(fetch, r)
			}
			if err := drop(c, t); err != nil {
				return err
			}
			f, plain, kernel := byCPU(fetch), byCPU(copied), byCPU(sent)
			plain.print("read and write, plainly")
			kernel.print("sendfile, plainly")
			f.print(fmt.Sprintf("TCP, fetch from %d, 1 MB each", n))
			fmt.Printf("  fetching from %d: %.2f times the CPU of read and write (to reach: 1.5), %.2f times that of sendfile\n", n,
				f.cpuPerMB()/plain.cpuPerMB(), f.cpuPerMB()/kernel.cpuPerMB())
		}
		return nil
	})
}

// shimBesideTCP measures the ways in turns, CPU of shim and nodes together. All of them lead to the
// first node: a shim that has the choice might take the partition's leader, or another one.
func (b *bench) shimBesideTCP() error {
	return b.with(b.fast(), small, "", func(c *harness.Cluster) error {
		header()
		all := ways(c)[:2]
		programs := []string{c.Shim.Path}
		if b.shim != "" {
			programs = append(programs, strings.Split(b.shim, ",")...)
		}
		for i, program := range programs {
			name := "shim"
			if i > 0 {
				name = "other shim " + filepath.Base(program)
			}
			w, err := shimOf(c, name, program)
			if err != nil {
				return err
			}
			defer func() { _ = w.through.Kill9() }()
			all = append(all, w)
		}
		for _, load16 := range []struct {
			name            string
			conns, inFlight int
		}{{"1 client, 5 in flight", 1, 5}, {"1 client, 64 in flight", 1, 64}} {
			t, err := topic(c, fmt.Sprintf("shim-%d", load16.inFlight), 1)
			if err != nil {
				return err
			}
			l := load{topic: t, partitions: 1, p: batch(16<<10, false), conns: load16.conns, inFlight: load16.inFlight, trim: true}
			produce := func(w way) (result, error) { return l.produce(c, w, b.window) }
			if err := inTurns(all, "produce 16 KB, "+load16.name, produce); err != nil {
				return err
			}
			if err := b.countWays(c, all, l); err != nil {
				return err
			}
			if err := drop(c, t); err != nil {
				return err
			}
		}
		t, err := b.fill(c, "shim-fetch", 1, readTotal)
		if err != nil {
			return err
		}
		if err := quiet(c); err != nil {
			return err
		}
		return inTurns(all, "fetch, 1 MB each", func(w way) (result, error) {
			return fetchAll(c, w, t, 1, batch(16<<10, false), enough)
		})
	})
}

// countWays counts in turns what a request costs the nodes by each way. Three nodes sync an append
// to one partition, so three divided by the syncs of a request is how many requests share one:
// whether a way keeps together what the client sends together.
func (b *bench) countWays(c *harness.Cluster, all []way, l load) error {
	countsHeader("of all nodes, for each request:")
	sums := make([]counted, len(all))
	for turn := range readRounds {
		for i := range all {
			if turn%2 == 1 {
				i = len(all) - 1 - i
			}
			n, err := counting(c, func() (int, error) {
				r, err := l.produce(c, all[i], b.window)
				return r.records / l.p.records, err
			})
			if err != nil {
				return err
			}
			sums[i].add(n)
		}
	}
	for i, w := range all {
		sums[i].print(w.name)
	}
	return nil
}

// shimOf starts a shim's binary in front of the first node.
func shimOf(c *harness.Cluster, name, program string) (w way, err error) {
	port, err := harness.FreePort()
	if err != nil {
		return w, err
	}
	at := harness.Loopback(port)
	p := &harness.Process{
		Name: name, Path: program, Log: filepath.Join(c.Dir, strings.ReplaceAll(name, " ", "-")+"-1.log"),
		Args: []string{"--listen", at, "--gateways", c.Gateways()[0]},
	}
	if err := p.Start(); err != nil {
		return w, err
	}
	return way{name, func() (net.Conn, error) { return net.Dial("tcp", at) }, p}, harness.WaitTCP(at, 10*time.Second)
}

// inTurns measures all ways one after the other, several times, and compares them with the first.
func inTurns(all []way, what string, measure func(way) (result, error)) error {
	got := make([][]result, len(all))
	for round := range readRounds + 1 {
		for i := range all {
			if round%2 == 1 { // A B B A
				i = len(all) - 1 - i
			}
			w := all[i]
			r, err := measure(w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if round > 0 { // the first finds cold caches and connections
				got[i] = append(got[i], r)
			}
		}
	}
	var first result
	for i, w := range all {
		var sum result
		for _, r := range got[i] {
			sum.bytes, sum.records, sum.took = sum.bytes+r.bytes, sum.records+r.records, sum.took+r.took
			sum.used.cpu += r.used.cpu
			sum.used.shim += r.used.shim
			sum.used.wrote += r.used.wrote
			sum.latency = append(sum.latency, r.latency...)
		}
		sum.print(w.name + ", " + what)
		if i == 0 {
			first = sum
			continue
		}
		fmt.Printf("  %s beside %s: %.2f of the MB/s, %.2f of the CPU, of which the shim's %.2f\n", w.name, all[0].name, sum.mbs()/first.mbs(), sum.cpuPerMB()/first.cpuPerMB(),
			sum.used.shim.Seconds()/sum.used.cpu.Seconds())
	}
	return nil
}
