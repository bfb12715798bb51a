package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newGroupResetOffsets() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP --topic TOPIC (--to-… | --shift-by N) [--execute]",
		Short: "Set where a group without members goes on",
		Long: `Set the committed offsets of a group that has no members right now. Without
--execute it only shows what they would be. What lies outside of a log is moved to
its nearest end.`,
		Example: `  trimaran group reset-offsets readers --topic events --to-earliest
  trimaran group reset-offsets readers --topic events:0,2 --to-offset 1000 --execute
  trimaran group reset-offsets readers --topic events --to-datetime 2026-01-31T12:00:00Z
  trimaran group reset-offsets readers --topic events --shift-by -100 --execute`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return resetOffsets(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.StringArray("topic", nil, "a topic, or `topic:partition,…`; can be given several times")
	f.Bool("to-earliest", false, "to the start of the log")
	f.Bool("to-latest", false, "to its end")
	f.Int64("to-offset", 0, "to this offset")
	f.String("to-datetime", "", "to the first record that is not older than this `time` (RFC 3339)")
	f.Int64("shift-by", 0, "from what is committed, so many records on, or back if negative")
	f.Bool("execute", false, "do it")
	f.Bool("dry-run", false, "only show it (the default)")
	f.Bool("json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("to-earliest", "to-latest", "to-offset", "to-datetime", "shift-by")
	cmd.MarkFlagsOneRequired("to-earliest", "to-latest", "to-offset", "to-datetime", "shift-by")
	cmd.MarkFlagsMutuallyExclusive("execute", "dry-run")
	return cmd
}

// resetOffset is one partition's part of what is done.
type resetOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Before    int64  `json:"before"` // -1: nothing was committed
	After     int64  `json:"after"`
}

func resetOffsets(cmd *cobra.Command, group string) error {
	wanted, err := topicPartitions(cmd)
	if err != nil {
		return err
	}
	return withGroups(cmd, func(ctx context.Context, _ *brokers, adm *kadm.Client) error {
		r, err := newReset(ctx, cmd, adm, group, wanted)
		if err != nil {
			return err
		}
		var all []resetOffset
		for topic, only := range wanted {
			some, err := r.topic(topic, only)
			if err != nil {
				return err
			}
			all = append(all, some...)
		}
		if len(all) == 0 {
			return fmt.Errorf("group %s: nothing is committed that could be shifted", group)
		}
		slices.SortFunc(all, func(a, b resetOffset) int {
			if a.Topic != b.Topic {
				return strings.Compare(a.Topic, b.Topic)
			}
			return int(a.Partition - b.Partition)
		})
		execute, _ := cmd.Flags().GetBool("execute")
		if execute {
			commits := kadm.Offsets{}
			for _, o := range all {
				commits.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.After, LeaderEpoch: -1})
			}
			if err := adm.CommitAllOffsets(ctx, group, commits); err != nil {
				return fmt.Errorf("group %s: %w", group, err)
			}
		}
		return showReset(cmd, all, execute)
	})
}

// reset is what is known of the topics and of the group before anything is set.
type reset struct {
	flags        *pflag.FlagSet
	starts, ends kadm.ListedOffsets
	times        kadm.ListedOffsets // nil without --to-datetime
	committed    kadm.OffsetResponses
}

// newReset asks for what decides where a group goes on. A group with members is an error.
func newReset(ctx context.Context, cmd *cobra.Command, adm *kadm.Client, group string, wanted map[string][]int32) (r *reset, err error) {
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return nil, err
	}
	if g := described[group]; len(g.Members) > 0 {
		return nil, fmt.Errorf("group %s has %d members: stop them first, or they go on where they are", group, len(g.Members))
	}
	names := make([]string, 0, len(wanted))
	for t := range wanted {
		names = append(names, t)
	}
	r = &reset{flags: cmd.Flags()}
	if r.starts, err = whole(adm.ListStartOffsets(ctx, names...)); err != nil {
		return nil, err
	}
	if r.ends, err = whole(adm.ListEndOffsets(ctx, names...)); err != nil {
		return nil, err
	}
	if r.committed, err = adm.FetchOffsets(ctx, group); err != nil {
		return nil, err
	}
	if text, _ := r.flags.GetString("to-datetime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, usagef("--to-datetime %q: want a time like 2026-01-31T12:00:00Z", text)
		}
		if r.times, err = whole(adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), names...)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// topic gives what becomes of a topic's partitions, of all where only names none.
func (r *reset) topic(topic string, only []int32) (all []resetOffset, err error) {
	ends := r.ends[topic]
	if len(ends) == 0 {
		return nil, fmt.Errorf("topic %s: there is none of that name; 'trimaran topic list' shows all", topic)
	}
	for p, end := range ends {
		if len(only) > 0 && !slices.Contains(only, p) {
			continue
		}
		start := r.starts[topic][p]
		o := resetOffset{Topic: topic, Partition: p, Before: -1}
		if c, ok := r.committed.Lookup(topic, p); ok {
			o.Before = c.At
		}
		switch {
		case r.flags.Changed("to-earliest"):
			o.After = start.Offset
		case r.flags.Changed("to-latest"):
			o.After = end.Offset
		case r.flags.Changed("to-offset"):
			o.After, _ = r.flags.GetInt64("to-offset")
		case r.flags.Changed("to-datetime"):
			if o.After = end.Offset; r.times[topic][p].Offset >= 0 {
				o.After = r.times[topic][p].Offset
			}
		default:
			by, _ := r.flags.GetInt64("shift-by")
			if o.Before < 0 && len(only) == 0 {
				continue // of a whole topic, those that have something
			}
			if o.Before < 0 {
				return nil, fmt.Errorf("%s-%d: nothing is committed that could be shifted", topic, p)
			}
			o.After = o.Before + min(by, math.MaxInt64-o.Before)
		}
		o.After = min(max(o.After, start.Offset), end.Offset)
		all = append(all, o)
	}
	for _, p := range only {
		if _, ok := ends[p]; !ok {
			return nil, fmt.Errorf("topic %s has no partition %d", topic, p)
		}
	}
	return all, nil
}

// showReset prints what is set, or would be.
func showReset(cmd *cobra.Command, all []resetOffset, execute bool) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	rows := [][]string{{"TOPIC", "PARTITION", "BEFORE", "AFTER"}}
	for _, r := range all {
		rows = append(rows, []string{r.Topic, fmt.Sprint(r.Partition), offsetText(r.Before), fmt.Sprint(r.After)})
	}
	if err := printTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	if !execute {
		fmt.Fprintln(cmd.ErrOrStderr(), "Nothing is changed yet: --execute does it.")
	}
	return nil
}

// whole makes an answer of which a part failed an error: a partition without its offset would be
// set to an end of its log.
func whole(listed kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err == nil {
		err = listed.Error()
	}
	return listed, err
}

// topicPartitions reads --topic: partitions by topic, none meaning all.
func topicPartitions(cmd *cobra.Command) (map[string][]int32, error) {
	given, _ := cmd.Flags().GetStringArray("topic")
	if len(given) == 0 {
		return nil, usagef("--topic is missing")
	}
	wanted := map[string][]int32{}
	for _, text := range given {
		topic, list, some := strings.Cut(text, ":")
		if topic == "" {
			return nil, usagef("--topic %q: want a topic, or topic:partition,…", text)
		}
		wanted[topic] = nil
		if !some {
			continue
		}
		for field := range strings.SplitSeq(list, ",") {
			p, err := strconv.ParseInt(field, 10, 32)
			if err != nil || p < 0 {
				return nil, usagef("--topic %q: %q is no partition", text, field)
			}
			wanted[topic] = append(wanted[topic], int32(p))
		}
	}
	return wanted, nil
}
