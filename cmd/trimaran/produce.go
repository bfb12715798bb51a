package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func newProduce() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Write the lines of standard input as records",
		Long: `Write the lines of standard input to a topic, one record each.
It ends when every record is acknowledged, and fails if one was not.`,
		Example: `  echo hello | trimaran produce greetings
  trimaran produce events --key-separator : < events.txt
  trimaran produce events --partition 2 --compression snappy --print-offsets < events.txt
  trimaran produce events --brokers ws://127.0.0.1:9093 < events.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return produce(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.String("key-separator", "", "what separates a line's key from its value (default: lines have no key)")
	f.Int32("partition", -1, "write to this partition; -1: by key, or any where there is none")
	f.String("acks", "all", "what counts as written: all, 1 (both: on disk at a majority) or 0 (sent)")
	f.String("compression", "none", "none, gzip or snappy")
	f.Bool("print-offsets", false, "print partition and offset of each record")
	f.Bool("json", false, "print topic, partition and offset of each record as JSON lines")
	addProgressFlag(cmd)
	return cmd
}

func produce(cmd *cobra.Command, topic string) error {
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	opts, err := produceOptions(cmd)
	if err != nil {
		return err
	}
	cl, err := b.client(append(opts, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	if _, err := partitionsOf(ctx, b, cl); err != nil { // say early that nobody is there
		return err
	}

	t := &tally{
		started: time.Now(),
		out:     bufio.NewWriter(cmd.OutOrStdout()), left: cl.BufferedProduceRecords,
	}
	f := cmd.Flags()
	if asJSON, _ := f.GetBool("json"); asJSON {
		t.format = func(dst []byte, r *kgo.Record) []byte {
			return formatJSON(dst, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset})
		}
	} else if offsets, _ := f.GetBool("print-offsets"); offsets {
		if t.format, err = parseFormat(`%p\t%o\n`, false); err != nil {
			return err
		}
	}
	if to := progressOf(cmd); to != nil {
		defer t.showProgress(to)()
	}

	separator, _ := f.GetString("key-separator")
	partition, _ := f.GetInt32("partition")
	read := make(chan error, 1)
	go func() { // which a terminal that says nothing keeps for ever
		read <- eachLine(cmd.Context(), cmd.InOrStdin(), func(line []byte) error {
			if err := t.failed(); err != nil {
				return err
			}
			r, err := recordOf(line, separator)
			if err != nil {
				return fmt.Errorf("line %d: %w", t.sent+1, err)
			}
			r.Partition = partition
			t.sent++
			cl.Produce(cmd.Context(), r, t.done)
			return nil
		})
	}()
	select {
	case err = <-read:
	case <-cmd.Context().Done():
		err = errors.New("interrupted")
	}
	// Who interrupts is told what became of what was read, and does not wait for long.
	flushing, stop := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer stop()
	defer context.AfterFunc(cmd.Context(), func() { time.AfterFunc(farewell, stop) })()
	if cl.Flush(flushing) != nil {
		err = errors.New("interrupted: some records may not have been written")
	}
	return t.result(topic, err)
}

// farewell is how long records that are under way are waited for after an interruption.
const farewell = 2 * time.Second

func produceOptions(cmd *cobra.Command) ([]kgo.Opt, error) {
	f := cmd.Flags()
	timeout, _ := f.GetDuration("timeout")
	opts := []kgo.Opt{kgo.RecordDeliveryTimeout(timeout), kgo.AllowAutoTopicCreation(), kgo.MaxBufferedBytes(64 << 20)}
	switch acks, _ := f.GetString("acks"); acks {
	case "all", "-1":
		opts = append(opts, kgo.RequiredAcks(kgo.AllISRAcks()))
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()))
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()))
	default:
		return nil, usagef("--acks %q: want all, 1 or 0", acks)
	}
	switch codec, _ := f.GetString("compression"); codec {
	case "none":
		opts = append(opts, kgo.ProducerBatchCompression(kgo.NoCompression()))
	case "gzip":
		opts = append(opts, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	case "snappy":
		opts = append(opts, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	default:
		return nil, usagef("--compression %q: want none, gzip or snappy", codec)
	}
	if p, _ := f.GetInt32("partition"); p >= 0 {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	} else if p != -1 {
		return nil, usagef("--partition %d: partitions are numbered from 0", p)
	}
	return opts, nil
}

// recordOf makes a record of a line; without a separator there is no key.
func recordOf(line []byte, separator string) (*kgo.Record, error) {
	if separator == "" {
		return &kgo.Record{Value: line}, nil
	}
	key, value, ok := bytes.Cut(line, []byte(separator))
	if !ok {
		return nil, fmt.Errorf("no %q in it, so no key", separator)
	}
	return &kgo.Record{Key: key, Value: value}, nil
}

// eachLine calls f for every line without its "\n", and for what is behind the
// last "\n" if anything is. Each call gets memory of its own.
func eachLine(ctx context.Context, in io.Reader, f func(line []byte) error) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("standard input: %w", err)
		}
		if len(line) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if ferr := f(bytes.TrimSuffix(line, []byte("\n"))); ferr != nil {
			return ferr
		}
		if err != nil {
			return nil
		}
	}
}

// tally counts what became of the records.
type tally struct {
	started time.Time
	format  formatter    // of what is printed of each record; nil: nothing
	left    func() int64 // records under way, perhaps with the one that is being counted
	sent    int          // only the goroutine that produces touches it

	// guards the rest; what is printed is printed under it, and no other lock is taken
	mu    sync.Mutex
	out   *bufio.Writer
	acked int
	bytes int64
	bad   int
	first error
}

// done is told of each record, by franz-go, one after the other per partition.
func (t *tally) done(r *kgo.Record, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.bad++
		if t.first == nil {
			t.first = err
		}
		return
	}
	t.acked++
	t.bytes += int64(len(r.Key) + len(r.Value))
	if t.format != nil {
		t.out.Write(t.format(nil, r))
		if t.left() <= 1 { // lines that come now and then are answered at once
			t.out.Flush() // result has its error
		}
	}
}

func (t *tally) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first
}

// result says in one error what went wrong, nil if every record was acknowledged.
func (t *tally) result(topic string, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if flushErr := t.out.Flush(); t.first == nil {
		return cmp.Or(err, flushErr)
	}
	hint := ""
	switch {
	case errors.Is(t.first, kerr.UnknownTopicOrPartition):
		hint = fmt.Sprintf("\n'trimaran topic create %s' creates it", topic)
	case strings.Contains(t.first.Error(), "invalid record partitioning choice"):
		hint = fmt.Sprintf("\n'trimaran topic describe %s' shows its partitions", topic)
	}
	return fmt.Errorf("%d of %d records were acknowledged, %d were not: %w%s", t.acked, t.acked+t.bad, t.bad, t.first, hint)
}

// showProgress rewrites a line until the function it gives is called.
func (t *tally) showProgress(to io.Writer) (stop func()) {
	line := func(end string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		took := time.Since(t.started)
		fmt.Fprintf(to, "\r%d records, %s, %s, %s/s   %s", t.acked, showBytes(t.bytes),
			took.Round(100*time.Millisecond), showBytes(int64(float64(t.bytes)/took.Seconds())), end)
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				line("")
			case <-quit:
				line("\n")
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}
