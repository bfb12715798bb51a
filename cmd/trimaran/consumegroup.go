package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

// quietFor is how long nothing must have come before a group's consumer that does not follow ends.
const quietFor = 3 * time.Second

// consumeAsGroup reads as a member of a consumer group. What is printed is committed, at the latest
// when it ends.
func consumeAsGroup(cmd *cobra.Command, topic, group string) error {
	f := cmd.Flags()
	if f.Changed("partition") {
		return usagef("--partition is not for --group: the group shares the partitions out")
	}
	format, err := formatOf(cmd)
	if err != nil {
		return err
	}
	cl, err := groupMember(cmd, topic, group)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	follow, _ := f.GetBool("follow")
	limit, _ := f.GetInt64("max-messages")
	timeout, _ := f.GetDuration("timeout")
	out := bufio.NewWriterSize(raw(cmd.OutOrStdout()), 64<<10)
	ctx := cmd.Context()
	printed := int64(0)
	var last []*kgo.Record
	// deliver commits what is printed, and nothing else: a full disk or a reader that has
	// gone must not lose records. Also when interrupted: what is printed is not to be
	// printed again.
	deliver := func() error {
		if err := out.Flush(); err != nil || len(last) == 0 {
			return err
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		err := cl.CommitRecords(within, last...)
		last = nil
		return err
	}
	// A reader that has gone is an error of writing, so that the group is left in good
	// order: others would wait for this member until its session is over.
	signal.Ignore(syscall.SIGPIPE)
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
				return deliver()
			}
		}
		if err := deliver(); err != nil {
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
			return letIn(cl, group, timeout)
		}
	}
}

// groupMember gives a client that is to be a member of the group; it commits nothing by itself.
func groupMember(cmd *cobra.Command, topic, group string) (*kgo.Client, error) {
	reset := kgo.NewOffset().AtStart()
	if text, _ := cmd.Flags().GetString("from"); text == "latest" {
		reset = kgo.NewOffset().AtEnd()
	} else if text != "earliest" {
		return nil, usagef("--from %q: with --group want earliest or latest, for where nothing is committed", text)
	}
	b, err := hasTopic(cmd, topic) // before a group is made for one that is not there
	if err != nil {
		return nil, err
	}
	return b.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(reset), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
}

// letIn is nil if the client became a member of the group.
func letIn(cl *kgo.Client, group string, timeout time.Duration) error {
	if _, generation := cl.GroupMetadata(); generation < 0 {
		return fmt.Errorf("group %s: not let in within %v: its coordinator is away ('trimaran cluster status' tells), or it waits for members that do not answer, until their session timeout; --timeout allows for more", group, timeout)
	}
	return nil
}

// hasTopic gives the brokers that the flags name, and an error if the topic is not there.
func hasTopic(cmd *cobra.Command, topic string) (*brokers, error) {
	b, cl, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	_, err = partitionCount(ctx, b, cl, topic)
	return b, err
}
