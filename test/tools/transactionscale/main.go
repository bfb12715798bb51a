// Command transactionscale asks a real cluster for many or large transactions, and holds what that
// costs against bounds that are counts and bytes:
//
//	ids         100,000 transactional ids: listed, one of them aborted, a node restarted, a
//	            shard's leader killed
//	partitions  one transaction over 10,000 partitions, committed while the coordinator's leader
//	            dies between the decision and the markers, and one that is aborted so
//	timeout     a transaction that stays open for its whole timeout, and what readers get
//	large       1 GiB in one transaction, on nodes with little memory: aborted, and committed
//	hundred     a hundred producers, one of which hangs
//
// Beside each a plain producer writes to a topic of its own; its longest wait for an
// acknowledgement is printed, as all times are, and bounds nothing: the machine may be busy.
//
// You are here: outside. Each part starts nodes of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

type options struct {
	ids    int
	topics int
	large  int64
	dir    string
}

// part is one of the checks.
type part struct {
	name  string
	start func(options) harness.Options
	run   func(ctx context.Context, r *run) error
}

var parts = []part{
	{"ids", plainNodes, manyIDs},
	{"partitions", plainNodes, manyPartitions},
	{"timeout", plainNodes, wholeTimeout},
	{"large", smallNodes, largeTransaction},
	{"hundred", plainNodes, hundredProducers},
}

func main() {
	var o options
	only := flag.String("only", "", "run the parts of these `names` alone, with commas between them")
	flag.IntVar(&o.ids, "ids", 100_000, "transactional `ids`")
	flag.IntVar(&o.topics, "topics", 100, "`topics` of 100 partitions each")
	flag.Int64Var(&o.large, "large", 1<<30, "`bytes` of the large transaction")
	flag.StringVar(&o.dir, "dir", "", "`folder` for the nodes' data; empty: a temporary one")
	flag.Parse()
	if flag.NArg() > 0 || o.ids < 1 || o.topics < 1 || o.large < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad := false
	for _, p := range parts {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), p.name) {
			continue
		}
		fmt.Printf("%s\n", p.name)
		if err := p.do(ctx, o); err != nil {
			fmt.Printf("  FAIL: %v\n", err)
			bad = true
		}
	}
	harness.RemoveBinaries()
	if bad {
		os.Exit(1)
	}
}

func plainNodes(o options) harness.Options {
	return harness.Options{Dir: o.dir, NoShim: true}
}

// run is a part at work.
type run struct {
	options
	cluster *harness.Cluster
	began   time.Time
}

func (p part) do(ctx context.Context, o options) (err error) {
	if o.dir != "" {
		if o.dir, err = os.MkdirTemp(o.dir, p.name+"-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	c, err := harness.Start(p.start(o))
	if c != nil {
		defer func() {
			if err != nil {
				fmt.Fprintln(os.Stderr, c.Logs(30))
			}
			if complaint := c.Close(); complaint != "" {
				err = errors.Join(err, fmt.Errorf("a process complained:\n%s", complaint))
			}
		}()
	}
	if err != nil {
		return err
	}
	r := &run{options: o, cluster: c, began: time.Now()}
	b, err := startBystander(ctx, c)
	if err != nil {
		return err
	}
	err = p.run(ctx, r)
	return errors.Join(err, b.end())
}

// say prints a line with the time since the part began.
func (r *run) say(format string, args ...any) {
	fmt.Printf("  %6.1f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// took prints how long something took.
func (r *run) took(what string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.say("%s: %.2f s", what, time.Since(began).Seconds())
	return nil
}

// client makes a client of all nodes.
func (r *run) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(r.cluster.Addrs()...),
		// The one broker that clients see is asked at the address that was told last.
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DialTimeout(5 * time.Second),
	}, more...)...)
}

// producer makes a client with a transactional id that has begun a transaction.
func (r *run) producer(id string, timeout time.Duration, more ...kgo.Opt) (*kgo.Client, error) {
	cl, err := r.client(append(more, kgo.TransactionalID(id), kgo.TransactionTimeout(timeout))...)
	if err != nil {
		return nil, err
	}
	if err := cl.BeginTransaction(); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// patience bounds whatever is waited for.
const patience = 10 * time.Minute
