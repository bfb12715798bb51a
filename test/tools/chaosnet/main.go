// Command chaosnet runs a cluster on hosts that fail as real ones do, and judges what clients saw.
//
// Each node has a network namespace and a file system of its own (ext4 on a loop device); all
// packets between the hosts go through this program, which cuts, loses, delays, reorders and resets
// as told (package hostnet). Faults are rolled from a seed (faults.go): of links and ports, of
// processes, of disks, and nodes that join, leave and are replaced meanwhile. Clients (clients.go)
// speak Kafka's protocol by package harness, which knows nothing of the product, and the checker
// (checker.go) names anomalies by Jepsen's words. What /readyz and the metrics said is held against
// what clients got (monitor.go).
//
// Usage: go run ./tools/chaosnet [-seconds 600] [-seed N], in the folder test, as root. It ends
// with 1 if there is an anomaly, and with 3 where it cannot make namespaces, TUN devices or loop
// mounts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

type options struct {
	seconds    int
	seed       uint64
	nodes      int
	partitions int
	only       string // kinds of faults, with commas between them
	keep       string
}

func main() {
	var o options
	flag.IntVar(&o.seconds, "seconds", 600, "how long faults go on")
	flag.Uint64Var(&o.seed, "seed", 0, "the dice; 0 rolls one and prints it")
	flag.IntVar(&o.nodes, "nodes", 3, "nodes at the start, 3 to 5")
	flag.IntVar(&o.partitions, "partitions", 6, "partitions of the topic")
	flag.StringVar(&o.only, "only", "", "kinds of faults, with commas between them; all when empty: "+strings.Join(kindNames(), ","))
	flag.StringVar(&o.keep, "keep", "", "folder that gets the nodes' logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o, os.Stdout)
	harness.RemoveBinaries()
	switch {
	case errors.Is(err, hostnet.ErrUnable):
		fmt.Fprintln(os.Stderr, "chaosnet:", err)
		os.Exit(3)
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaosnet:", err)
		os.Exit(2)
	case !good:
		os.Exit(1)
	}
}

const topic = "chaos"

// recovery is how long the cluster may take to serve again when all faults are over.
const recovery = 90 * time.Second

func run(ctx context.Context, o options, out io.Writer) (good bool, err error) {
	if o.nodes < 3 || o.nodes > 5 {
		return false, fmt.Errorf("%d nodes, want 3 to 5", o.nodes)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 40)
	}
	fmt.Fprintf(out, "chaosnet: seed %d, %d nodes, %d partitions, %d s\n", o.seed, o.nodes, o.partitions, o.seconds)
	w, err := newWorld(o, out)
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return false, err
	}
	for i := 1; i <= o.nodes; i++ {
		if err := w.addHost(); err != nil {
			return false, err
		}
	}
	for _, h := range w.hosts {
		if err := h.start(); err != nil {
			return false, err
		}
	}
	if err := w.ready(recovery); err != nil {
		return false, err
	}
	if err := w.createTopic(topic, o.partitions); err != nil {
		return false, err
	}
	history := newHistory(o.partitions)
	clients := startClients(w, history)
	monitor := startMonitor(w, history)
	w.say("the cluster serves; faults begin")
	err = w.disturb(ctx, time.Duration(o.seconds)*time.Second)
	if err == nil {
		w.say("faults are over; everything is healed")
		err = w.heal()
	}
	if err == nil {
		err = w.settled(recovery, history)
	}
	monitor.stop()
	clients.stop()
	if err != nil {
		return false, err
	}
	if err := w.readBack(history, recovery); err != nil {
		return false, err
	}
	verdict := history.judge()
	fmt.Fprintln(out)
	fmt.Fprint(out, w.faultTable())
	fmt.Fprint(out, monitor.report())
	fmt.Fprint(out, verdict)
	complaints := w.complaints()
	for _, c := range complaints {
		fmt.Fprintln(out, "complaint:", c)
	}
	good = verdict.good() && len(complaints) == 0
	if good {
		fmt.Fprintln(out, "result: no anomaly")
	} else {
		fmt.Fprintf(out, "result: ANOMALIES (seed %d)\n", o.seed)
	}
	return good, nil
}
