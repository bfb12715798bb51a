// Command benchgroups measures what many partitions cost and how long they are
// silent when a node ends: three node processes on this machine, a topic of N
// partitions with three replicas each.
//
// You are here: outside, like the tests. Idle mode (the default) prints, for each
// N, what a process costs while nobody asks for anything, and how soon after a
// cold start all partitions have a leader. With -kill it keeps one producer
// per partition busy through the other nodes, ends a node again and again, and
// prints the longest time that a partition went without an acknowledgement.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func main() {
	groups := flag.String("partitions", "100,1000", "numbers of partitions to measure, one after the other")
	seconds := flag.Float64("seconds", 10, "how long the idle nodes are watched")
	dir := flag.String("dir", "", "where the nodes' data goes (default: a new folder in the temporary one)")
	kill := flag.String("kill", "", "instead: end nodes by KILL, STOP or TERM under load")
	times := flag.Int("times", 10, "how often, with -kill")
	pace := flag.Duration("pace", 50*time.Millisecond, "how long a producer waits between an acknowledgement and its next produce, with -kill")
	against := flag.String("against", "", "idle mode in turns with the program of this commit")
	secured := flag.Bool("secured", false, "with -kill: in turns with a cluster whose nodes know each other by certificates")
	flag.Parse()
	if err := run(*groups, time.Duration(*seconds*float64(time.Second)), *dir, strings.ToUpper(*kill), *times, *pace, *against, *secured); err != nil {
		fmt.Fprintln(os.Stderr, "benchgroups:", err)
		os.Exit(1)
	}
}

func run(groups string, window time.Duration, parent, kill string, times int, pace time.Duration, against string, secured bool) error {
	defer harness.RemoveBinaries()
	old, err := program(against)
	if err != nil {
		return err
	}
	if old != "" {
		defer os.Remove(old)
	}
	for _, s := range strings.Split(groups, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of partitions", s)
		}
		dir, err := os.MkdirTemp(parent, "trimaran-benchgroups-")
		if err != nil {
			return err
		}
		if kill == "" {
			err = idleInTurns(dir, int32(n), window, against, old)
		} else {
			err = silence(dir, int32(n), kill, times, pace, secured)
		}
		os.RemoveAll(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

// program builds the node's binary of a commit; "" for none.
func program(commit string) (string, error) {
	if commit == "" {
		return "", nil
	}
	return harness.ProgramOf(commit)
}

// start gives a cluster with one topic, all of whose partitions have a leader. program "" is the
// one of this tree.
func start(dir, program string, partitions int32, args []string) (*harness.Cluster, error) {
	topics := fmt.Sprintf("many:%d", partitions)
	c, err := harness.Start(harness.Options{Dir: dir, NoShim: true, NoWait: true, Topics: topics, NodeArgs: args, Program: program})
	if err == nil {
		err = c.WaitReady(5 * time.Minute)
	}
	if err == nil {
		_, err = allLed(c, partitions, 2*time.Minute)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs(20))
		c.Close()
		return nil, err
	}
	return c, nil
}

// allLed waits until every partition has a leader and gives how many each node leads, by the nodes'
// own metrics: the status of a cluster waits for nodes that do not answer yet.
func allLed(c *harness.Cluster, partitions int32, within time.Duration) (map[string]int, error) {
	var leads map[string]int
	led := 0
	err := harness.Eventually(within, func() bool {
		leads, led = map[string]int{}, 0
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			body, _, err := harness.Get("http://" + n.Addr() + "/metrics")
			if err != nil {
				return false
			}
			if m := leaderCount.FindStringSubmatch(body); m != nil {
				leads[n.ID], _ = strconv.Atoi(m[1])
				led += leads[n.ID]
			}
		}
		return led == int(partitions)
	})
	if err != nil {
		return nil, fmt.Errorf("%d of %d partitions have a leader", led, partitions)
	}
	return leads, nil
}

var leaderCount = regexp.MustCompile(`(?m)^trimaran_leader_count (\d+)$`)
