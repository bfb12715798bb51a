// Command interop runs foreign Kafka clients against a real cluster of three
// nodes and a shim, and prints one table: clients × ways in.
//
// You are here: the outside. A client is a small program under clients/ with one
// command line (see contract.go); catalog.go lists the clients and their pinned
// versions, prepare.go installs them into a cache folder, scenario.go is what each
// of them goes through, tools.go does the same for Kafka's own command-line tools,
// streams.go and connect.go for Kafka Streams and Kafka Connect.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// settings are the command line.
type settings struct {
	only    []string
	records int           // per codec
	step    time.Duration // deadline of one step
	groups  bool
	kill    bool
	quick   bool
	secured bool
	json    bool
	list    bool
	prepare bool
	verbose bool
	ways    []string
	cache   string
	keep    string
	against string
}

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

func parse() (settings, error) {
	var s settings
	only := flag.String("only", "", "run the `names` (of clients, or beginnings of names), with commas between them")
	ways := flag.String("ways", "tcp,shim", "the `ways` in")
	flag.IntVar(&s.records, "n", 10_000, "`records` that each client writes with each codec")
	flag.DurationVar(&s.step, "step", 2*time.Minute, "the `time` that one step of a client may take")
	flag.BoolVar(&s.groups, "groups", true, "consumer groups too")
	flag.BoolVar(&s.kill, "kill", false, "once more while the node that leads is killed and restarted")
	flag.BoolVar(&s.quick, "quick", false, "a few clients, one way in, 1000 records")
	flag.BoolVar(&s.secured, "secured", false, "clients log in, over TLS, by each mechanism")
	flag.BoolVar(&s.json, "json", false, "print JSON instead of the table")
	flag.BoolVar(&s.list, "list", false, "list the clients and end")
	flag.BoolVar(&s.prepare, "prepare", false, "install and build the clients, and end")
	flag.BoolVar(&s.verbose, "v", false, "say every step")
	flag.StringVar(&s.keep, "keep", "", "`folder` that gets all logs")
	flag.StringVar(&s.against, "against", "", "bootstrap `servers` of another cluster, Kafka's own for comparison, instead of starting one")
	flag.Parse()
	if flag.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	s.ways = strings.Split(*ways, ",")
	if s.against != "" {
		if s.kill {
			return s, errors.New("-against and -kill exclude each other")
		}
		s.ways = []string{"tcp"}
	}
	if s.secured {
		if s.against != "" {
			return s, errors.New("-against and -secured exclude each other")
		}
		s.records, s.groups = min(s.records, 500), s.groups && !s.quick
	}
	if s.quick {
		s.records = min(s.records, 1000)
	}
	for _, w := range s.ways {
		if w != "tcp" && w != "shim" {
			return s, fmt.Errorf("no way in is called %q: tcp, shim", w)
		}
	}
	s.cache = os.Getenv("TRIMARAN_INTEROP_CACHE")
	if s.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return s, fmt.Errorf("no cache folder (set TRIMARAN_INTEROP_CACHE): %w", err)
		}
		s.cache = filepath.Join(dir, "trimaran-interop")
	}
	var err error
	if s.cache, err = filepath.Abs(s.cache); err != nil {
		return s, err
	}
	return s, os.MkdirAll(s.cache, 0o777)
}

func run() (int, error) {
	s, err := parse()
	if err != nil {
		return 1, err
	}
	rows := choose(catalog(), s)
	if s.secured {
		rows = chooseSecured(append(catalog(), securedRows()...), s)
	}
	if len(rows) == 0 {
		return 1, fmt.Errorf("no client is called %q (-list lists them)", strings.Join(s.only, ","))
	}
	if s.list {
		for _, r := range rows {
			fmt.Printf("%-22s %-10s %s\n", r.name, r.version, r.mode)
		}
		return 0, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	say("preparing %d clients in %s", len(rows), s.cache)
	ready := prepareAll(ctx, s, rows)
	if s.prepare {
		if lack := slices.IndexFunc(ready, func(p prepared) bool { return p.err != nil }); lack >= 0 {
			return 1, fmt.Errorf("%s is missing", ready[lack].name)
		}
		return 0, nil
	}

	work := s.keep
	if work == "" {
		if work, err = os.MkdirTemp("", "trimaran-interop-"); err != nil {
			return 1, err
		}
		defer os.RemoveAll(work)
	} else if work, err = filepath.Abs(work); err != nil {
		return 1, err
	}
	if err := os.MkdirAll(filepath.Join(work, "cluster"), 0o777); err != nil {
		return 1, err
	}
	b := &bench{settings: s, work: work}
	defer harness.RemoveBinaries()
	defer b.stop()
	if err := b.start(ctx); err != nil {
		if b.cluster != nil {
			err = fmt.Errorf("%w\n%s", err, b.cluster.Logs(20))
			b.cluster.Close()
		}
		return 1, err
	}
	var results []result
	if s.secured {
		results = b.allSecured(ctx, ready)
	} else {
		results = b.all(ctx, ready)
	}
	complaint := ""
	if b.cluster != nil {
		complaint = b.cluster.Close()
	}

	if s.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(results); err != nil {
			return 1, err
		}
	} else {
		show := table
		if s.secured {
			show = securedTable
		}
		fmt.Print(show(results))
	}
	if complaint != "" {
		return 1, fmt.Errorf("a process of the cluster complained:\n%s", complaint)
	}
	if ctx.Err() != nil {
		return 1, errors.New("interrupted")
	}
	return verdict(results, os.Getenv("CI") == "true"), nil
}

// soon has a new group wait for more members as long as to be seen, not for Kafka's three seconds,
// which each row would spend several times.
var soon = []string{"--group-initial-rebalance-delay-ms", "300"}

// start starts the cluster, or takes the one that is there already.
func (b *bench) start(ctx context.Context) (err error) {
	switch {
	case b.against != "":
		b.addrs = strings.Split(b.against, ",")
		b.driverAddr, b.looks = b.addrs[0], b.addrs
	case b.secured:
		return b.startSecured(ctx)
	default:
		if b.cluster, err = harness.Start(harness.Options{Dir: filepath.Join(b.work, "cluster"), NodeArgs: soon}); err != nil {
			return err
		}
		b.addrs, b.looks = b.cluster.Addrs(), b.cluster.Addrs()
		b.driverAddr, b.shimAddr = b.cluster.ShimAddr(), b.cluster.ShimAddr()
	}
	return nil
}

// stop ends what stands before the cluster, which run itself ends.
func (b *bench) stop() {
	if b.guard != nil && b.guard.relay != nil {
		b.guard.relay.close()
	}
}

// chooseSecured keeps the rows that can log in and were asked for.
func chooseSecured(rows []row, s settings) []row {
	var out []row
	for _, r := range rows {
		if r.mode == "default" && (r.run == nil || r.secured) {
			r.quick = slices.Contains(quickly, r.name)
			out = append(out, r)
		}
	}
	return choose(out, s)
}

// choose keeps the rows that were asked for.
func choose(rows []row, s settings) []row {
	var out []row
	for _, r := range rows {
		switch {
		case r.needsGroups && !s.groups:
		case len(s.only) > 0:
			for _, o := range s.only {
				if strings.HasPrefix(r.name, strings.TrimSpace(o)) {
					out = append(out, r)
					break
				}
			}
		case r.named:
		case !s.quick || r.quick:
			out = append(out, r)
		}
	}
	return out
}

var sayLock sync.Mutex

// say reports progress; the table alone goes to stdout.
func say(format string, args ...any) {
	sayLock.Lock()
	defer sayLock.Unlock()
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
