// Command transactions runs transactional producers and consumers against a cluster while its nodes
// are killed, paused and restarted, and their links are cut, delayed and healed, and looks for
// anomalies in what they were told and gave. Requests of former transactions arrive late (late).
//
// Three loads run at once:
//
//	append  each producer writes transactions of some records to several partitions, commits most
//	        and aborts some; now and then it is replaced by another with its transactional id,
//	        which fences it in the middle of a transaction
//	race    producers whose last record is on its way while they end the transaction
//	ring    messages go back and forth between two topics, hop by hop: workers in two consumer
//	        groups consume, and produce the next hop and commit the offset in one transaction
//
// Readers of both isolation levels follow every partition, and at the end all is read again. See
// history for what is looked for.
//
// You are here: outside. The clients are franz-go's; the program shares no code with the cluster.
// With -brokers it leaves nodes alone and takes any Kafka, which is how the checker was checked.
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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/harness/hostnet"
)

type options struct {
	brokers    []string // nil: a cluster of its own
	nodes      int
	seconds    int
	partitions int
	producers  int
	racers     int
	workers    int // of each of the ring's two groups
	hops       int
	old        bool
	shim       bool
	quiet      bool
	from       string // program that the nodes begin with; "": the one of this tree
	whole      bool   // the networks are left alone
	seed       uint64
	dir        string
}

func main() {
	var o options
	brokers := flag.String("brokers", "", "addresses of a cluster that is left alone, with commas; empty: three nodes are started and disturbed")
	flag.IntVar(&o.nodes, "nodes", 3, "nodes to start")
	flag.IntVar(&o.seconds, "seconds", 60, "how long to produce")
	flag.IntVar(&o.partitions, "partitions", 4, "partitions of each topic")
	flag.IntVar(&o.producers, "producers", 5, "producers of appended transactions")
	flag.IntVar(&o.racers, "racers", 2, "producers that write while they end their transactions")
	flag.IntVar(&o.workers, "workers", 2, "workers of each of the ring's two groups")
	flag.IntVar(&o.hops, "hops", 4, "hops of a message in the ring")
	flag.BoolVar(&o.old, "v1", false, "speak version 1 of the protocol, as clients before Kafka 4 do")
	flag.BoolVar(&o.shim, "through-shim", false, "clients connect to the shim")
	flag.BoolVar(&o.quiet, "quiet", false, "leave the nodes alone")
	flag.StringVar(&o.from, "upgrade-from", "", "older trimaran that the nodes begin with; they become this tree's one by one, and nothing else happens to them")
	flag.BoolVar(&o.whole, "no-cuts", false, "leave the networks alone, for which root is needed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the dice")
	flag.StringVar(&o.dir, "keep", "", "folder for data and logs, which are kept there")
	flag.Parse()
	if *brokers != "" {
		o.brokers = strings.Split(*brokers, ",")
	}
	if flag.NArg() > 0 || o.nodes < 1 || o.seconds < 1 || o.partitions < 1 || o.producers < 1 || o.racers < 0 || o.workers < 1 || o.hops < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if len(o.brokers) > 0 || o.quiet || o.from != "" {
		o.whole = true
	}
	if !o.whole {
		if err := hostnet.Own(); err != nil {
			fmt.Fprintln(os.Stderr, "transactions: networks cannot be cut here, -no-cuts leaves them alone:", err)
			os.Exit(3)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "transactions:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// world is what the loads have in common.
type world struct {
	options
	seeds []string
	h     *history
	// trouble has what clients were told that is no anomaly, and how often.
	trouble counts
	// asleep is how many producers fell asleep (errAsleep).
	asleep atomic.Int64

	topicID [16]byte // of appendTopic

	lateMu sync.Mutex
	lates  map[string]int // requests that came late, by kind
}

// client makes a client of the cluster.
func (w *world) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(w.common(), more...)...)
}

const (
	dialTimeout = 2 * time.Second
	// answerTimeout is how long a client waits for an answer before it asks again elsewhere: less
	// than some faults last, so that requests come late.
	answerTimeout = 3 * time.Second
)

// common is what all clients have in common. With old they are held to version 1 of the protocol.
func (w *world) common() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(w.seeds...),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(time.Duration(n)*50*time.Millisecond, 500*time.Millisecond) }),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.ProduceRequestTimeout(2 * time.Second),
	}
	if w.old {
		opts = append(opts, kgo.MaxVersions(kversion.V3_8_0()))
	}
	return opts
}

// run is the whole check: good when no anomaly was found.
func run(ctx context.Context, o options, out io.Writer) (good bool, err error) {
	w := &world{options: o, seeds: o.brokers, h: newHistory()}
	var cluster *harness.Cluster
	var links *field
	if len(w.seeds) == 0 {
		defer harness.RemoveBinaries()
		how := harness.Options{Nodes: o.nodes, Dir: o.dir, NoShim: !o.shim, Program: o.from}
		if !o.whole {
			links, err = newField(o.nodes, o.seed)
			defer func() { links.net.Close() }()
			if err != nil {
				return false, err
			}
			how.Hosts = links.hosts()
		}
		if cluster, err = harness.Start(how); cluster != nil {
			defer func() {
				if complaint := cluster.Close(); complaint != "" {
					good, err = false, errors.Join(err, fmt.Errorf("a process complained:\n%s", complaint))
				}
			}()
		}
		if err != nil {
			return false, err
		}
		w.seeds = cluster.Addrs()
		if o.shim {
			w.seeds = []string{cluster.ShimAddr()}
		}
	}
	version := 2
	if o.old {
		version = 1
	}
	fmt.Fprintf(out, "transactions: %d s, version %d, %d producers, %d workers, %d partitions, seed %d\n",
		o.seconds, version, o.producers, 2*o.workers, o.partitions, o.seed)
	if err := w.createTopics(ctx); err != nil {
		return false, err
	}

	whole := time.Duration(o.seconds) * time.Second
	timeUp, cancel := context.WithTimeout(ctx, whole)
	if o.from != "" {
		timeUp, cancel = context.WithCancel(ctx) // until all are upgraded
	}
	defer cancel()
	var disturbing sync.WaitGroup
	d := &disturber{cluster: cluster, field: links, dice: rand.New(rand.NewPCG(o.seed, 1)), out: out, began: time.Now()}
	switch {
	case cluster == nil || o.quiet:
	case o.from != "":
		disturbing.Go(func() {
			defer cancel()
			d.upgrade(ctx, whole/time.Duration(o.nodes+1))
		})
	default:
		disturbing.Go(func() { d.run(timeUp) })
	}
	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	followers := w.follow(following)
	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()
	workers := w.startWorkers(working)

	var writing sync.WaitGroup
	for n := range o.producers {
		writing.Go(func() { w.append(timeUp, n) })
	}
	for n := range o.racers {
		writing.Go(func() { w.race(timeUp, n) })
	}
	writing.Go(func() { w.feed(timeUp) })
	writing.Wait()
	disturbing.Wait()
	if d.err != nil {
		return false, d.err
	}
	if ctx.Err() != nil {
		return false, errors.New("interrupted")
	}
	// All nodes are up. Whoever was given up is fenced now, so that nothing stays open.
	if err := w.settle(ctx); err != nil {
		return false, err
	}
	if err := w.awaitRing(ctx); err != nil {
		fmt.Fprintf(out, "%v\n", err) // check says what is missing
	}
	stopWorking()
	workers.Wait()
	if err := w.settleWorkers(ctx); err != nil {
		return false, err
	}
	hanging, err := w.awaitMarkers(ctx)
	if err != nil {
		return false, err
	}
	final, err := w.readAll(ctx, hanging)
	if err != nil {
		return false, err
	}
	w.awaitFollowers(ctx, final)
	stopFollowing()
	followers.Wait()
	w.h.check(final, o.hops)
	w.report(out, d)
	if w.h.committed() == 0 {
		return false, errors.New("no transaction was committed at all")
	}
	return w.h.good(), nil
}
