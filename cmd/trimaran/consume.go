package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

func newConsume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic",
		Long: `Print the records of a topic, from its start to where it ends now; with --follow,
go on with what is written later until interrupted.

With --group the group's members share the partitions, and what is printed is
committed: the next one goes on behind it. It ends when nothing has come for a while.

--format knows %v value, %k key, %o offset, %p partition, %t topic, %T timestamp
in milliseconds (-1 when the record has none), %% and \n \t \r \0 \\.`,
		Example: `  trimaran consume greetings
  trimaran consume events --from latest --follow
  trimaran consume events --partition 2 --from 1000 --max-messages 10
  trimaran consume events --format '%p %o %k %v\n'
  trimaran consume events --group readers
  trimaran consume events --json --brokers ws://127.0.0.1:9093`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return consume(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.String("from", "earliest", "earliest, latest, an offset, or -N: the last N records of each partition")
	f.Int32("partition", -1, "read only this partition; -1: all")
	f.Bool("follow", false, "wait for new records instead of ending")
	f.String("group", "", "read as a member of this consumer group, from where it has committed")
	f.Int64("max-messages", 0, "end after so many records; 0: no limit")
	f.String("format", "", `how to print a record, e.g. '%k\t%v\n' (default: the value on a line)`)
	f.Bool("print-key", false, "print the key and a tab before the value")
	f.Bool("print-offset", false, "print partition and offset before the rest, with tabs")
	f.Bool("json", false, "print each record as a line of JSON")
	f.Bool("raw", false, "print keys and values as they are on a terminal, too (default: what could steer it is escaped there)")
	cmd.MarkFlagsMutuallyExclusive("format", "print-key", "json")
	cmd.MarkFlagsMutuallyExclusive("format", "print-offset", "json")
	return cmd
}

func consume(cmd *cobra.Command, topic string) error {
	f := cmd.Flags()
	if group, _ := f.GetString("group"); group != "" {
		return consumeAsGroup(cmd, topic, group)
	}
	format, err := formatOf(cmd)
	if err != nil {
		return err
	}
	fromText, _ := f.GetString("from")
	from, err := parseFrom(fromText)
	if err != nil {
		return err
	}
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	cl, err := b.client(kgo.FetchMaxWait(500*time.Millisecond), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return err
	}
	defer cl.Close()
	follow, _ := f.GetBool("follow")
	only, _ := f.GetInt32("partition")
	ctx, cancel := withTimeout(cmd)
	spans, err := plan(ctx, b, cl, topic, only, from)
	cancel()
	if err != nil {
		return err
	}
	limit, _ := f.GetInt64("max-messages")
	out := bufio.NewWriterSize(raw(cmd.OutOrStdout()), 64<<10)
	patience := time.Duration(0)
	if !follow {
		patience, _ = f.GetDuration("timeout")
	}
	err = printRecords(cmd.Context(), cl, topic, spans, patience, limit, func(r *kgo.Record) error {
		_, err := out.Write(format(nil, r))
		return err
	}, out.Flush)
	if errors.Is(err, context.DeadlineExceeded) {
		err = b.unreachable(err)
	}
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func formatOf(cmd *cobra.Command) (formatter, error) {
	f := cmd.Flags()
	if asJSON, _ := f.GetBool("json"); asJSON {
		return formatJSON, nil
	}
	asItIs, _ := f.GetBool("raw")
	escape := !asItIs && isTerminal(cmd.OutOrStdout())
	if text, _ := f.GetString("format"); text != "" {
		return parseFormat(text, escape)
	}
	text := `%v\n`
	if key, _ := f.GetBool("print-key"); key {
		text = `%k\t` + text
	}
	if offset, _ := f.GetBool("print-offset"); offset {
		text = `%p\t%o\t` + text
	}
	return parseFormat(text, escape)
}

// start is where --from says to begin.
type start struct {
	end    bool  // at the end of the log …
	back   int64 // … or so many records before it
	offset int64 // else at this offset; earliest for the start of the log
}

func parseFrom(s string) (start, error) {
	switch s {
	case "earliest":
		return start{offset: earliest}, nil
	case "latest":
		return start{end: true}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return start{}, usagef("--from %q: want earliest, latest, an offset, or -N for the last N records", s)
	}
	if n < 0 {
		return start{end: true, back: -n}, nil
	}
	return start{offset: n}, nil
}

// within gives the offset to begin at in a log from first to end (exclusive).
func (s start) within(first, end int64) (int64, error) {
	switch {
	case s.end:
		return max(end-s.back, first), nil
	case s.offset == earliest:
		return first, nil
	case s.offset < first || s.offset > end:
		return 0, fmt.Errorf("offset %d is outside the log, which has offsets from %d up to (not including) %d", s.offset, first, end)
	}
	return s.offset, nil
}

// span is the part of a partition to print: from next up to end, exclusive.
type span struct{ next, end int64 }

// plan finds out what the partitions hold now.
func plan(ctx context.Context, b *brokers, cl *kgo.Client, topic string, only int32, from start) (map[int32]span, error) {
	count, err := partitionCount(ctx, b, cl, topic)
	if err != nil {
		return nil, err
	}
	if only >= count || only < -1 {
		return nil, fmt.Errorf("topic %s has %d partitions, numbered from 0: there is no partition %d", topic, count, only)
	}
	var partitions []int32
	for p := range count {
		if only < 0 || only == p {
			partitions = append(partitions, p)
		}
	}
	firsts, err := listOffsets(ctx, b, cl, topic, partitions, earliest)
	if err != nil {
		return nil, err
	}
	ends, err := listOffsets(ctx, b, cl, topic, partitions, latest)
	if err != nil {
		return nil, err
	}
	spans := map[int32]span{}
	for _, p := range partitions {
		at, err := from.within(firsts[p], ends[p])
		if err != nil {
			return nil, fmt.Errorf("partition %d: %w", p, err)
		}
		spans[p] = span{at, ends[p]}
	}
	return spans, nil
}

// printRecords fetches the spans. It gives nil when everything asked for is printed,
// and context.DeadlineExceeded when nothing more comes for so long as patience is.
// Patience 0 goes on behind the spans, until it is interrupted, which gives nil.
func printRecords(ctx context.Context, cl *kgo.Client, topic string, spans map[int32]span, patience time.Duration, limit int64,
	print func(*kgo.Record) error, flush func() error) error {
	follow := patience == 0
	from := map[int32]kgo.Offset{}
	for p, s := range spans {
		if follow || s.next < s.end {
			from[p] = kgo.NewOffset().At(s.next)
		}
	}
	if len(from) == 0 {
		return nil
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	printed, open := int64(0), len(from)
	for {
		poll, cancel := ctx, context.CancelFunc(func() {})
		if !follow {
			poll, cancel = context.WithTimeout(ctx, patience)
		}
		fetches := cl.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			if follow {
				return nil
			}
			return errors.New("interrupted")
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) {
				return e.Err
			}
			return fmt.Errorf("%s-%d: %w", e.Topic, e.Partition, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			s := spans[r.Partition]
			if r.Offset < s.next || (!follow && r.Offset >= s.end) {
				continue
			}
			if err := print(r); err != nil {
				return err
			}
			if printed++; printed == limit {
				return nil
			}
			s.next = r.Offset + 1
			spans[r.Partition] = s
			if !follow && s.next >= s.end {
				open--
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if !follow && open == 0 {
			return nil
		}
	}
}
