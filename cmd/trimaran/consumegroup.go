package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

// quietFor is how long nothing must have come before a group's consumer that does not follow ends.
const quietFor = 3 * time.Second

// consumeAsGroup reads as a member of a consumer group. What is printed is committed, at the latest when it ends.
func consumeAsGroup(cmd *cobra.Command, topic, group string) (err error) {
	f := cmd.Flags()
	if f.Changed("partition") {
		return usagef("--partition is not for --group: the group shares the partitions out")
	}
	format, err := formatOf(cmd)
	if err != nil {
		return err
	}
	reset := kgo.NewOffset().AtStart()
	if text, _ := f.GetString("from"); text == "latest" {
		reset = kgo.NewOffset().AtEnd()
	} else if text != "earliest" {
		return usagef("--from %q: with --group want earliest or latest, for where nothing is committed", text)
	}
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	cl, err := b.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(reset), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	follow, _ := f.GetBool("follow")
	limit, _ := f.GetInt64("max-messages")
	timeout, _ := f.GetDuration("timeout")
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	ctx := cmd.Context()
	printed := int64(0)
	var last []*kgo.Record
	commit := func() error {
		if len(last) == 0 {
			return nil
		}
		// Also when interrupted: what is printed is not to be printed again.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		err := cl.CommitRecords(within, last...)
		last = nil
		return err
	}
	// finish commits only what the output has taken: the rest is to come again.
	finish := func() error {
		if err := out.Flush(); err != nil {
			return err
		}
		return commit()
	}
	defer func() {
		if ferr := finish(); !errors.Is(err, ferr) {
			err = errors.Join(err, ferr)
		}
	}()
	since := time.Now()
	first := true
	for {
		wait := quietFor
		if first {
			wait = timeout // joining takes its time
		}
		poll, cancel := context.WithDeadline(ctx, since.Add(wait))
		fetches := cl.PollFetches(poll)
		cancel()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) {
				return fmt.Errorf("%s-%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if _, err := out.Write(format(nil, r)); err != nil {
				return err
			}
			last = append(last, r)
			since, first = time.Now(), false
			if printed++; printed == limit {
				return nil
			}
		}
		if err := finish(); err != nil {
			return err
		}
		cl.AllowRebalance()
		if ctx.Err() != nil {
			if follow {
				return nil
			}
			return errors.New("interrupted")
		}
		if follow {
			since = time.Now()
		} else if time.Since(since) >= wait {
			return nil
		}
	}
}
