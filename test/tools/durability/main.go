// Command durability writes to a running cluster while its nodes are killed,
// restarted and paused in turn, reads everything back from every gateway, and
// says what was acknowledged, lost, moved or doubled. scripts/durability.sh builds
// and starts all that it needs.
//
// You are here: outside, as a stranger. The program shares no code with the
// cluster: it speaks Produce, Fetch and ListOffsets of version 0 over TCP with the
// harness's client, has one request outstanding per connection, and counts every
// error and every broken connection as an unknown fate, which is tried again under
// another attempt number. What was acknowledged stands in the harness's ledger.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

type options struct {
	shim       string
	brokers    []string
	topic      string
	seconds    int
	partitions int
	producers  int
	batch      int
	valueSize  int
	pause      time.Duration
	timeout    time.Duration
	script     string
	numbers    []int
	how        string
	trimaran   string
	user       string
	calm, down time.Duration
	seed       uint64
}

func main() {
	var o options
	brokers := flag.String("brokers", "", "client addresses of all nodes, with commas")
	flag.StringVar(&o.shim, "shim", "", "address that producers write to")
	flag.StringVar(&o.topic, "topic", fmt.Sprintf("durability-%d", time.Now().Unix()), "topic, created here")
	flag.IntVar(&o.seconds, "seconds", 60, "how long to produce")
	flag.IntVar(&o.partitions, "partitions", 6, "partitions of the topic")
	flag.IntVar(&o.producers, "producers", 12, "producers, each with a connection of its own")
	flag.IntVar(&o.batch, "batch", 10, "most messages in a request")
	flag.IntVar(&o.valueSize, "value-bytes", 200, "about the size of a value")
	flag.DurationVar(&o.pause, "pause", 5*time.Millisecond, "between two requests of a producer")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Second, "for one request")
	flag.StringVar(&o.script, "disturb", "", "path of cluster.sh, to kill, restart and pause nodes with; empty: leave them alone")
	numbers := flag.String("numbers", "", "the nodes' numbers for cluster.sh, with commas")
	flag.StringVar(&o.how, "how", "turns", "turns: one node after the other; storm: several at once, by dice; come-and-go: nodes join, are decommissioned and replaced")
	flag.StringVar(&o.trimaran, "trimaran", "", "path of trimaran, to compare replicas with, and for come-and-go")
	flag.StringVar(&o.user, "user", "", "who logs in, by SCRAM-SHA-256; the password is in $TRIMARAN_PASSWORD")
	flag.DurationVar(&o.calm, "calm", 2*time.Second, "between two disturbances; in a storm, at most")
	flag.DurationVar(&o.down, "down", 3*time.Second, "how long a node is killed or paused; in a storm, at most")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of batch sizes and pauses, and of a storm")
	flag.Parse()
	if o.user != "" {
		login = &harness.Login{User: o.user, Password: os.Getenv("TRIMARAN_PASSWORD")}
	}
	o.brokers = strings.Split(*brokers, ",")
	for _, text := range strings.Split(*numbers, ",") {
		if n, err := strconv.Atoi(text); err == nil {
			o.numbers = append(o.numbers, n)
		}
	}
	known := o.how == "turns" || o.how == "storm" || o.how == "come-and-go" && o.trimaran != ""
	if !known || o.script != "" && len(o.numbers) == 0 || *brokers == "" || o.shim == "" || o.partitions < 1 || o.producers < 1 || o.batch < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "durability:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// run is the whole check. It is good when nothing was lost, moved or doubled.
func run(ctx context.Context, o options, out io.Writer) (good bool, err error) {
	if err := createTopic(ctx, o); err != nil {
		return false, err
	}
	fmt.Fprintf(out, "durability: %d s, %d producers, %d partitions of %s, acks=-1 through %s, seed %d\n",
		o.seconds, o.producers, o.partitions, o.topic, o.shim, o.seed)
	began := time.Now()
	l := harness.NewLedger(int32(o.partitions), began)
	timeUp, cancel := context.WithTimeout(ctx, time.Duration(o.seconds)*time.Second)
	defer cancel()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()

	d := &disturber{script: o.script, trimaran: o.trimaran, shim: o.shim, nodes: o.numbers, calm: o.calm, down: o.down,
		dice: rand.New(rand.NewPCG(o.seed, 1<<32)), log: out, began: began}
	disturbed := make(chan error, 1)
	go func() {
		switch {
		case o.script == "":
			disturbed <- nil
		case o.how == "come-and-go":
			disturbed <- d.comeAndGo(ctx)
		case o.how == "storm":
			disturbed <- d.storm(timeUp)
		default:
			disturbed <- d.turns(timeUp)
		}
	}()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	tails := make([]*tail, o.partitions)
	var watchers, writers sync.WaitGroup
	for p := range tails {
		tails[p] = &tail{reader: reader{addr: o.shim, topic: o.topic, partition: int32(p), timeout: o.timeout}, size: o.valueSize}
		watchers.Go(func() { tails[p].run(watching) })
	}
	for n := range o.producers {
		p := &producer{
			number: int32(n), addr: o.shim, topic: o.topic, partition: int32(n % o.partitions),
			valueSize: o.valueSize, batch: o.batch, pause: o.pause, timeout: o.timeout, ledger: l,
			random: rand.New(rand.NewPCG(o.seed, uint64(n))),
		}
		writers.Go(func() { p.run(writing, 30*time.Second) })
	}
	// Nodes that come and go take the time that it takes, and are written to for as long.
	<-timeUp.Done()
	if o.how == "come-and-go" {
		err = <-disturbed
	}
	stopWriting()
	l.Close(time.Now())
	writers.Wait()
	if o.how != "come-and-go" {
		err = <-disturbed
	}
	if err != nil {
		return false, err
	}
	stopWatching()
	watchers.Wait()
	if ctx.Err() != nil {
		return false, fmt.Errorf("interrupted")
	}

	if o.how == "come-and-go" {
		if o.brokers, err = d.addresses(); err != nil {
			return false, err
		}
	}
	v := &harness.Verdict{Acknowledged: l.Count()}
	reading, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := readBack(reading, o, l, tails, v); err != nil {
		return false, err
	}
	if o.trimaran != "" {
		if _, err := output(o.trimaran, asUser("cluster", "verify", o.topic, "--brokers", o.shim)...); err != nil {
			v.Apart++
			v.Example("%v", err)
		}
	}
	if err := l.Impossible(); err != nil {
		v.Moved++
		v.Example("%v", err)
	}
	report(out, l, v, d, tails)
	if v.Acknowledged == 0 {
		return false, fmt.Errorf("nothing was acknowledged at all")
	}
	return v.Good(), nil
}

// createTopic creates the topic with three replicas, or as many as there are nodes.
func createTopic(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 0, 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = o.topic, int32(o.partitions), int16(min(3, len(o.brokers)))
	req.Topics = append(req.Topics, t)
	for {
		err := func() error {
			c, err := connect(o.shim, o.timeout)
			if err != nil {
				return err
			}
			defer c.Close()
			answer, err := c.AskWithin(req, 12*time.Second)
			if err != nil {
				return err
			}
			for _, t := range answer.(*kmsg.CreateTopicsResponse).Topics {
				if err := kerr.ErrorForCode(t.ErrorCode); err != nil && t.ErrorCode != kerr.TopicAlreadyExists.Code {
					return err
				}
			}
			return nil
		}()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create topic %s: %w", o.topic, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// readBack reads every partition from every gateway and judges it.
func readBack(ctx context.Context, o options, l *harness.Ledger, tails []*tail, v *harness.Verdict) error {
	for p := range int32(o.partitions) {
		readers := make([]*reader, len(o.brokers))
		for i, addr := range o.brokers {
			readers[i] = &reader{addr: addr, topic: o.topic, partition: p, timeout: 10 * time.Second}
			defer readers[i].close()
		}
		end, err := settledEnd(ctx, readers)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		var first []harness.Record
		for i, r := range readers {
			log, err := r.readAll(ctx, end, o.valueSize)
			if err != nil {
				return fmt.Errorf("read partition %d from %s: %w", p, r.addr, err)
			}
			v.Check(r.addr, p, log, l)
			if i == 0 {
				first = log
				v.Watched(p, tails[p].seen, log)
				continue
			}
			v.Compare(o.brokers[0], r.addr, p, first, log)
		}
	}
	return nil
}

// settledEnd gives the end of the log once all gateways agree on it, twice in a
// row: an attempt of unknown fate may still be on its way into the log.
func settledEnd(ctx context.Context, readers []*reader) (int64, error) {
	last, agreed := int64(-1), 0
	for {
		ends := map[int64]bool{}
		var problem error
		for _, r := range readers {
			end, err := r.end()
			if err != nil {
				problem = fmt.Errorf("end of the log at %s: %w", r.addr, err)
				break
			}
			ends[end] = true
		}
		if problem == nil && len(ends) > 1 {
			problem = fmt.Errorf("gateways do not agree where the log ends: %v", slices.Sorted(maps.Keys(ends)))
		}
		if problem == nil {
			end := slices.Collect(maps.Keys(ends))[0]
			if agreed++; end != last {
				last, agreed = end, 1
			}
			if agreed == 2 {
				return end, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, problem
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func report(out io.Writer, l *harness.Ledger, v *harness.Verdict, d *disturber, tails []*tail) {
	line := func(name string, n int, note string, args ...any) {
		fmt.Fprintf(out, "  %-14s %9d  %s\n", name, n, fmt.Sprintf(note, args...))
	}
	told := l.Summary()
	var reasons []string
	for _, r := range slices.Sorted(maps.Keys(told.Unknown)) {
		reasons = append(reasons, fmt.Sprintf("%s: %d", r, told.Unknown[r]))
	}
	seen, backward := 0, 0
	for _, t := range tails {
		seen += len(t.seen)
		backward += t.backward
		if t.broken != nil {
			v.Changed++
			v.Example("%v", t.broken)
		}
	}
	v.Changed += backward
	fmt.Fprintln(out)
	line("acknowledged", v.Acknowledged, "records, %.1f MB; nodes killed %d times, paused %d, restarted %d",
		float64(told.Bytes)/1e6, d.kills, d.pauses, d.restarts)
	line("unknown fate", told.Retried, "records written again (%s)", orNone(reasons))
	line("given up", told.GaveUp, "records that were never acknowledged")
	line("lost", v.Lost, "acknowledged and gone")
	line("moved", v.Moved+v.Differ, "at another offset than acknowledged (%d), or different between gateways (%d)", v.Moved, v.Differ)
	line("duplicated", v.Duplicated, "beyond what writing again explains (that explains %d, counted at each gateway)", v.Again)
	line("out of order", v.Disordered, "acknowledged out of the producer's order")
	line("apart", v.Apart, "1 if what replicas have on disk is not the same (trimaran cluster verify)")
	line("foreign", v.Foreign, "in the log, and not what anybody wrote")
	line("changed", v.Changed, "not as a consumer saw it during the run (%d records seen; the log went backwards %d times)", seen, backward)
	worst, one := l.Longest()
	fmt.Fprintf(out, "  longest time without an acknowledgement: %.2f s; of one partition: %.2f s (partition %d)\n",
		told.Silence.Length.Seconds(), one.Length.Seconds(), worst)
	for _, e := range v.Examples {
		fmt.Fprintln(out, "  !", e)
	}
	if v.Good() {
		fmt.Fprintln(out, "result: nothing lost, moved or doubled")
	} else {
		fmt.Fprintln(out, "result: FAILED")
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
