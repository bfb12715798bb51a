// Command opticks is the demo's client: it writes a text line by line through the
// shim, has the partition's leader killed half-way, reads everything back and
// compares. scripts/demo.sh starts the cluster for it.
//
// You are here: outside, as a user. The client is franz-go held to what a Kafka
// 0.8.0 client speaks; the leader is found as a user finds it, by `trimaran
// cluster status`, and killed by scripts/cluster.sh.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

const topic = "opticks"

type options struct {
	shim, brokers, trimaran, cluster, text string
	took                                   time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.shim, "shim", "127.0.0.1:9092", "address of the shim")
	flag.StringVar(&o.brokers, "brokers", "", "addresses of all nodes, to ask for the cluster's status")
	flag.StringVar(&o.trimaran, "trimaran", "bin/trimaran", "the command line")
	flag.StringVar(&o.cluster, "cluster", "scripts/cluster.sh", "what kills nodes")
	flag.StringVar(&o.text, "text", "scripts/opticks/testdata/Isaac.Newton-Opticks.txt", "the text")
	flag.DurationVar(&o.took, "take", 4*time.Second, "about how long to take for writing it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "opticks:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	text, err := os.ReadFile(o.text)
	if err != nil {
		return err
	}
	lines := bytes.Split(text, []byte("\n"))
	out, err := exec.CommandContext(ctx, o.trimaran, "topic", "create", topic,
		"--partitions", "1", "--replication-factor", "3", "--brokers", o.shim).CombinedOutput()
	if err != nil {
		return fmt.Errorf("create the topic: %w\n%s", err, out)
	}
	fmt.Printf("Writing Newton's Opticks, %d lines, through the shim with a Kafka 0.8 client …\n", len(lines))
	w, err := write(ctx, o, lines)
	if err != nil {
		return err
	}
	fmt.Println("Reading it back …")
	began := time.Now()
	got, err := read(ctx, o.shim, w.last+1)
	if err != nil {
		return err
	}
	reading := time.Since(began)
	back, repeats, err := restore(got)
	if err != nil {
		return err
	}
	same := bytes.Equal(back, text)
	fmt.Printf(`
  written       %d lines, %d bytes, in %.1f s
  killed        node %s, the leader, at line %d (kill -9); node %s leads now
  longest pause %.2f s between two acknowledgements
  read back     %d records in %.2f s`, len(lines), len(text), w.took.Seconds(), w.killed, w.killedAt, w.leader, w.pause.Seconds(), len(got), reading.Seconds())
	if repeats > 0 {
		// Without producer ids (Kafka 0.11) a client cannot tell what an unanswered
		// request did, so it sends again.
		fmt.Printf(", of which %d the client sent again when the leader died", repeats)
	}
	if !same {
		fmt.Printf("\n  result        DIFFERENT: %d bytes came back, not the same as were written\n", len(back))
		return errors.New("what was read is not what was written")
	}
	fmt.Printf("\n  result        the same, byte by byte\n\n")
	return nil
}

// written is what came of writing the text.
type written struct {
	took, pause    time.Duration
	last           int64 // highest offset
	killed, leader string
	killedAt       int
}

// write produces one record per line, its number as the key, evenly over the time
// to take, and kills the leader when half the lines are out.
func write(ctx context.Context, o options, lines [][]byte) (*written, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(o.shim),
		kgo.MaxVersions(kversion.V0_8_0()),
		kgo.DisableIdempotentWrite(), // 0.8 knows no producer ids
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.DefaultProduceTopic(topic),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()

	w := &written{last: -1}
	var mu sync.Mutex
	var failed error
	began := time.Now()
	lastAck := began
	done := func(r *kgo.Record, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("line %s: %w", r.Key, err))
			return
		}
		now := time.Now()
		w.pause = max(w.pause, now.Sub(lastAck))
		lastAck = now
		w.last = max(w.last, r.Offset)
	}
	killed := make(chan error, 1)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i, line := range lines {
		if i == len(lines)/2 {
			w.killedAt = i
			go func() { killed <- w.kill(ctx, o) }()
		}
		for due := o.took * time.Duration(i) / time.Duration(len(lines)); time.Since(began) < due; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		cl.Produce(ctx, &kgo.Record{Key: []byte(strconv.Itoa(i)), Value: line}, done)
	}
	if err := cl.Flush(ctx); err != nil {
		return nil, fmt.Errorf("wait for the last acknowledgements: %w", err)
	}
	w.took = time.Since(began)
	if err := <-killed; err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	w.leader, err = leader(ctx, o)
	return w, err
}

// kill ends the node that leads the partition as kill -9 does.
func (w *written) kill(ctx context.Context, o options) error {
	id, err := leader(ctx, o)
	if err != nil {
		return err
	}
	w.killed = id
	out, err := exec.CommandContext(ctx, o.cluster, "kill", strings.TrimPrefix(id, "n")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kill node %s: %w\n%s", id, err, out)
	}
	return nil
}

// leader asks which node leads the partition.
func leader(ctx context.Context, o options) (string, error) {
	for {
		out, err := exec.CommandContext(ctx, o.trimaran, "cluster", "status", "--json", "--brokers", o.brokers).Output()
		// who leads is told even where the catalog is not confirmed
		if err != nil && len(out) == 0 {
			return "", fmt.Errorf("ask for the cluster's status: %w", err)
		}
		var status struct {
			Topics []struct {
				Name       string
				Partitions []struct{ Leader string }
			}
		}
		if err := json.Unmarshal(out, &status); err != nil {
			return "", fmt.Errorf("the cluster's status: %w", err)
		}
		for _, t := range status.Topics {
			if t.Name == topic && len(t.Partitions) == 1 && t.Partitions[0].Leader != "" {
				return t.Partitions[0].Leader, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// read gives all records up to an offset, exclusive.
func read(ctx context.Context, shim string, end int64) ([]*kgo.Record, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(shim),
		kgo.MaxVersions(kversion.V0_8_0()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var all []*kgo.Record
	for next := int64(0); next < end; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read back: %d of %d records came", len(all), end)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset != next {
				return nil, fmt.Errorf("offset %d came where %d is due", r.Offset, next)
			}
			next++
			all = append(all, r)
		}
	}
	return all, nil
}

// restore puts the text together again. A line that was sent twice stands twice in
// the log; its first place counts, and those must be in order.
func restore(records []*kgo.Record) (text []byte, repeats int, err error) {
	values := map[int][]byte{}
	for _, r := range records {
		n, err := strconv.Atoi(string(r.Key))
		if err != nil {
			return nil, 0, fmt.Errorf("offset %d: key %q is no line number", r.Offset, r.Key)
		}
		if old, again := values[n]; again {
			if !bytes.Equal(old, r.Value) {
				return nil, 0, fmt.Errorf("line %d is there twice and different", n)
			}
			repeats++
			continue
		}
		if n != len(values) {
			return nil, 0, fmt.Errorf("offset %d: line %d comes where line %d is due", r.Offset, n, len(values))
		}
		values[n] = r.Value
	}
	for n := range len(values) {
		if n > 0 {
			text = append(text, '\n')
		}
		text = append(text, values[n]...)
	}
	return text, repeats, nil
}
