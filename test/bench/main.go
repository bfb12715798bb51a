// Command bench measures a three-node cluster of real processes on this machine:
// produce and fetch through a node's TCP port, over WebSocket and through the
// shim, with 1 KB records in batches of 16 KB and of 1 MB. In the same run it
// measures what the machine itself gives, since the figures mean nothing
// without: the disk under the data, and loopback.
//
// You are here: outside, like the tests. The client is this process, on the same
// cores as the nodes, and speaks Produce v0 and Fetch v0.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func main() {
	seconds := flag.Float64("seconds", 4, "length of each produce run")
	dir := flag.String("dir", "", "where the nodes' data goes (default: a new folder in the temporary one); give one on tmpfs to take the disk out")
	flag.Parse()
	if err := run(time.Duration(*seconds*float64(time.Second)), *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(window time.Duration, parent string) error {
	defer harness.RemoveBinaries()
	dir, err := os.MkdirTemp(parent, "trimaran-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	fmt.Println("Conditions")
	if err := printConditions(dir); err != nil {
		return err
	}
	fmt.Println("\nWhat the machine gives")
	if err := printDisk(dir); err != nil {
		return err
	}
	if err := printLoopback(); err != nil {
		return err
	}

	c, err := harness.Start(harness.Options{Dir: dir})
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs(20))
		c.Close() // what of it has started
		return err
	}
	defer c.Close()
	fmt.Printf("\nThree nodes, one partition, replication factor 3, acks=-1, no compression, %s per produce run\n", window)
	fmt.Println("The client keeps about 4 MB in flight: latency is that of a full queue. Fetch reads back what was produced, 1 MB at a time.")
	fmt.Println("CPU is user and system time of the three nodes (and of the shim where it is on the way) per MB of user data.")
	fmt.Printf("%-10s %-14s %10s %12s %9s %9s %11s\n", "way", "load", "MB/s", "records/s", "p50", "p99", "CPU ms/MB")
	for _, way := range ways(c) {
		for _, size := range []int{16 << 10, 1 << 20} {
			if err := measure(c, way, size, window); err != nil {
				return fmt.Errorf("%s, %s batches: %w\n%s", way.name, sizeName(size), err, c.Logs(20))
			}
		}
	}
	fmt.Println("\nOne 1 KB record outstanding at a time")
	for _, way := range ways(c) {
		if err := measureOne(c, way, window/2); err != nil {
			return fmt.Errorf("%s: %w\n%s", way.name, err, c.Logs(20))
		}
	}
	if err := allApplied(c, time.Minute); err != nil {
		return err
	}
	fmt.Println("\nAt the end every replica had applied every record.")
	return nil
}

// allApplied waits until each replica's own end is the partition's: a benchmark
// that waits for two of three could leave the third behind unnoticed.
func allApplied(c *harness.Cluster, within time.Duration) error {
	var behind []string
	err := harness.Eventually(within, func() bool {
		behind = nil
		s, err := c.Node(1).Status()
		if err != nil {
			behind = []string{err.Error()}
			return false
		}
		for _, t := range s.Topics {
			for _, p := range t.Partitions {
				for _, r := range p.Replicas {
					if r.Lag != 0 || r.Role == "offline" || r.Applied != p.HighWatermark {
						behind = append(behind, fmt.Sprintf("%s-%d on %s: %s, %d of %d", t.Name, p.Partition, r.Node, r.Role, r.Applied, p.HighWatermark))
					}
				}
			}
		}
		return len(behind) == 0
	})
	if err != nil {
		return fmt.Errorf("replicas are behind: %s", strings.Join(behind, "; "))
	}
	return nil
}

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d KB", n>>10)
}
