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
	f := cmd.Flags()
	wanted, err := topicPartitions(cmd)
	if err != nil {
		return err
	}
	return withGroups(cmd, func(ctx context.Context, _ *brokers, adm *kadm.Client) error {
		described, err := adm.DescribeGroups(ctx, group)
		if err != nil {
			return err
		}
		if g := described[group]; len(g.Members) > 0 {
			return fmt.Errorf("group %s has %d members: stop them first, or they go on where they are", group, len(g.Members))
		}
		names := make([]string, 0, len(wanted))
		for t := range wanted {
			names = append(names, t)
		}
		starts, err := whole(adm.ListStartOffsets(ctx, names...))
		if err != nil {
			return err
		}
		ends, err := whole(adm.ListEndOffsets(ctx, names...))
		if err != nil {
			return err
		}
		committed, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		var times kadm.ListedOffsets
		if text, _ := f.GetString("to-datetime"); text != "" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return usagef("--to-datetime %q: want a time like 2026-01-31T12:00:00Z", text)
			}
			if times, err = whole(adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), names...)); err != nil {
				return err
			}
		}
		var all []resetOffset
		commits := kadm.Offsets{}
		for topic, only := range wanted {
			if len(ends[topic]) == 0 {
				return fmt.Errorf("topic %s: there is none of that name; 'trimaran topic list' shows all", topic)
			}
			for p, end := range ends[topic] {
				if len(only) > 0 && !slices.Contains(only, p) {
					continue
				}
				start := starts[topic][p]
				r := resetOffset{Topic: topic, Partition: p, Before: -1}
				if c, ok := committed.Lookup(topic, p); ok {
					r.Before = c.At
				}
				switch {
				case f.Changed("to-earliest"):
					r.After = start.Offset
				case f.Changed("to-latest"):
					r.After = end.Offset
				case f.Changed("to-offset"):
					r.After, _ = f.GetInt64("to-offset")
				case f.Changed("to-datetime"):
					if r.After = end.Offset; times[topic][p].Offset >= 0 {
						r.After = times[topic][p].Offset
					}
				default:
					by, _ := f.GetInt64("shift-by")
					if r.Before < 0 && len(only) == 0 {
						continue // of a whole topic, those that have something
					}
					if r.Before < 0 {
						return fmt.Errorf("%s-%d: nothing is committed that could be shifted", topic, p)
					}
					r.After = r.Before + min(by, math.MaxInt64-r.Before)
				}
				r.After = min(max(r.After, start.Offset), end.Offset)
				all = append(all, r)
				commits.Add(kadm.Offset{Topic: topic, Partition: p, At: r.After, LeaderEpoch: -1})
			}
			for _, p := range only {
				if _, ok := ends[topic][p]; !ok {
					return fmt.Errorf("topic %s has no partition %d", topic, p)
				}
			}
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
		execute, _ := f.GetBool("execute")
		if execute {
			if err := adm.CommitAllOffsets(ctx, group, commits); err != nil {
				return fmt.Errorf("group %s: %w", group, err)
			}
		}
		if asJSON, _ := f.GetBool("json"); asJSON {
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
	})
}

// whole makes an answer of which a part failed an error: a partition without its offset would be set to an end of
// its log.
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
