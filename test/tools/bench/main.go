// Command bench measures three-node clusters of real processes on this machine,
// and in the same run what the machine itself gives, since the figures mean
// nothing without: the disk under the data, loopback, and memory as a disk.
//
// You are here: outside, like the tests. The client is this process, on the same
// cores as the nodes. CPU is that of the node processes (and the shim's where it is
// on the way) per MB of user data; it depends on the machine less than MB/s does.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// lastBolt is the last commit whose partitions lived in raft-boltdb.
const lastBolt = "6929332^"

type options struct {
	window  time.Duration
	windows int
	disk    string // parent folders of the data
	memory  string
	only    *regexp.Regexp
	against string
	versusOptions
	heavyOptions
	program string
	shim    string // binaries of other shims, by commas
}

func main() {
	if paths := os.Getenv(plainServer); paths != "" {
		if err := servePlainly(strings.Split(paths, ":"), os.Getenv(plainHow)); err != nil {
			fmt.Fprintln(os.Stderr, "bench: plain server:", err)
			os.Exit(1)
		}
		return
	}
	seconds := flag.Float64("seconds", 3, "length of each window")
	windows := flag.Int("windows", 3, "windows per produce run; their median counts")
	disk := flag.String("disk", "", "folder on the disk to measure (default: the one for temporary files)")
	memory := flag.String("memory", "/dev/shm", "folder on tmpfs, to take the disk out; empty: leave those runs out")
	only := flag.String("only", "", "regular expression of the sections to run: "+names())
	against := flag.String("against", lastBolt, "commit whose binary is measured beside this one in the section bolt")
	program := flag.String("program", "", "binary of the nodes, where a section does not name one; empty: of this tree")
	other := flag.String("other-shim", "", "binaries of other shims, by commas, measured in turns with this tree's in the section shim")
	o := options{}
	o.versusFlags()
	o.heavyFlags()
	flag.Parse()
	o.window, o.windows, o.disk, o.memory, o.against = time.Duration(*seconds*float64(time.Second)), *windows, *disk, *memory, *against
	o.program, o.shim = *program, *other
	if o.versus || o.heavy() {
		o.memory = "" // all there is about the disk
	}
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is a part of the run with a cluster or several of its own.
type section struct {
	name string
	what string
	run  func(*bench) error
}

var sections = []section{
	{"tmpfs", "One partition, data in memory: what the software itself takes", (*bench).onePartitionMemory},
	{"disk", "One partition, data on the disk", (*bench).onePartitionDisk},
	{"old", "Old clients: message sets of magic 0, converted on the way in and out", (*bench).oldClients},
	{"ways", "WebSocket and the shim beside TCP", (*bench).waysIn},
	{"reads", "Consume, beside reading the same file and writing it to a socket", (*bench).consuming},
	{"shim", "The shim and WebSocket beside TCP, in turns", (*bench).shimBesideTCP},
	{"secured", "What rights and TLS cost, in turns with plaintext", (*bench).secured},
	{"one", "One 1 KB record outstanding at a time", (*bench).oneAtATime},
	{"counts", "What a request costs, counted: context switches, system calls, syncs, messages", (*bench).counts},
	{"ahead", "Entries that go to followers while their leader stores them, beside after that, in turns", (*bench).ahead},
	{"pipeline", "One partition, 16 KB batches, by requests in flight", (*bench).pipeline},
	{"many", "16 and 100 partitions, 16 KB batches", (*bench).manyPartitions},
	{"busy", "10 partitions, 16 KB batches, alone and beside 990 that nobody uses", (*bench).busyAmongIdle},
	{"journal", "100 partitions, 1 KB records, one per batch: with the journal, without it, and without any sync", (*bench).smallBatches},
	{"transaction", "One transaction at a time, to 1, 10 and 100 partitions", (*bench).oneTransaction},
	{"transactional", "Producing in transactions beside idempotent producing, in turns", (*bench).transactional},
	{"isolation", "Fetches that are read_committed beside those that are not, in turns", (*bench).isolation},
	{"start", "Start of a cluster of one node (trimaran dev) to its first acknowledged record", (*bench).startOne},
	{"bolt", "Beside the store before it, raft-boltdb", (*bench).besideBolt},
}

func names() (s string) {
	for i, x := range sections {
		if i > 0 {
			s += ", "
		}
		s += x.name
	}
	return s
}

func run(o options) error {
	defer harness.RemoveBinaries()
	b := &bench{options: o}
	dir, err := os.MkdirTemp(o.disk, "trimaran-bench-")
	if err != nil {
		return err
	}
	b.diskDir = dir
	defer os.RemoveAll(dir)
	if o.memory != "" {
		if b.memoryDir, err = os.MkdirTemp(o.memory, "trimaran-bench-"); err != nil {
			fmt.Printf("No runs in memory: %v\n", err)
		} else {
			defer os.RemoveAll(b.memoryDir)
		}
	}
	// A run that is interrupted must not leave gigabytes in memory.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		os.RemoveAll(b.memoryDir)
		os.RemoveAll(b.diskDir)
		harness.RemoveBinaries()
		os.Exit(130)
	}()
	fmt.Println("Conditions")
	if err := printConditions(dir); err != nil {
		return err
	}
	switch {
	case o.heavy():
		fmt.Println("  acks=-1, no compression, values of 1 KB of noise; client and servers share the cores; MB are 10^6 bytes of keys and values")
	case o.versus:
		fmt.Println("  acks=-1, no compression, records of 1 KB of noise; client and servers share the cores")
	default:
		fmt.Printf("  three nodes, replication factor 3, acks=-1, no compression; medians of %d windows of %v\n", o.windows, o.window)
		fmt.Println("  \"wrote\" is bytes written by a node (mean of three) per byte of user data, as the kernel counts them")
	}
	fmt.Println("\nWhat the machine gives")
	if err := b.ceilings("at the start"); err != nil {
		return err
	}
	if err := b.memoryCost(); err != nil {
		return err
	}
	if err := printLoopback(&b.roundTrip); err != nil {
		return err
	}
	if err := printPingPong(); err != nil {
		return err
	}
	switch {
	case o.versus:
		return b.versus()
	case o.heavy():
		return b.heavyParts()
	}
	for _, s := range sections {
		if !o.only.MatchString(s.name) {
			continue
		}
		fmt.Printf("\n%s [%s]\n", s.what, s.name)
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Println("\nWhat the machine gives")
	return b.ceilings("at the end")
}
