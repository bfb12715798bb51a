package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
)

func newTopicAlter() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alter NAME",
		Short: "Change settings of a topic",
		Example: `  trimaran topic alter events --config retention.ms=86400000
  trimaran topic alter events --config max.message.bytes=5000000 --delete-config retention.ms
  trimaran topic alter events --replication-factor 1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return alterTopic(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.StringArray("config", nil, "a setting of the topic, `name=value`; can be given several times")
	f.StringArray("delete-config", nil, "the `name` of a setting that is to have its default again; can be given several times")
	f.String("config-file", "", "YAML, TOML or JSON `file` with settings of this command")
	f.Bool("dry-run", false, "only check whether it could be changed")
	f.Int("replication-factor", 0, "the `number` of replicas; they are moved in the background")
	return cmd
}

func alterTopic(cmd *cobra.Command, name string) error {
	f := cmd.Flags()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.ValidateOnly, _ = f.GetBool("dry-run")
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	given, _ := f.GetStringArray("config")
	for _, s := range given {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return usagef("--config %q: want name=value", s)
		}
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op, c.Value = key, kmsg.IncrementalAlterConfigOpSet, &value
		resource.Configs = append(resource.Configs, c)
	}
	deleted, _ := f.GetStringArray("delete-config")
	for _, key := range deleted {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op = key, kmsg.IncrementalAlterConfigOpDelete
		resource.Configs = append(resource.Configs, c)
	}
	factor, _ := f.GetInt("replication-factor")
	if len(resource.Configs) == 0 && factor == 0 {
		return usagef("nothing to change: give --config, --delete-config or --replication-factor")
	}
	if factor != 0 {
		if req.ValidateOnly {
			return usagef("--dry-run is not for --replication-factor")
		}
		if err := administer(cmd, admin.Request{Op: admin.OpReplicationFactor, Topic: name, Factor: factor}, nil); err != nil || len(resource.Configs) == 0 {
			return err
		}
	}
	req.Resources = append(req.Resources, resource)
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.IncrementalAlterConfigsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", name, explain(err, r.ErrorMessage))
		}
	}
	return nil
}

func newTopicAddPartitions() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add-partitions NAME --partitions N",
		Short: "Give a topic more partitions; returns when they can be used",
		Long: "Give a topic more partitions, N in all; returns when they can be used.\n" +
			"Records stay where they are, and from then on clients spread keys differently.",
		Example: "  trimaran topic add-partitions events --partitions 12",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return addPartitions(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	cmd.Flags().Int32("partitions", 0, "number of partitions in all, afterwards")
	cmd.Flags().Bool("dry-run", false, "only check whether they could be added")
	return cmd
}

func addPartitions(cmd *cobra.Command, name string) error {
	count, _ := cmd.Flags().GetInt32("partitions")
	if count < 1 {
		return usagef("--partitions: want the number of partitions in all")
	}
	timeout, _ := cmd.Flags().GetDuration("timeout")
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = int32(timeout.Milliseconds())
	req.ValidateOnly, _ = cmd.Flags().GetBool("dry-run")
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, count
	req.Topics = append(req.Topics, t)
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.CreatePartitionsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", name, explain(err, t.ErrorMessage))
		}
	}
	return nil
}

func newTopicDeleteRecords() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete-records NAME --before OFFSET",
		Short: "Delete the records of partitions below an offset",
		Example: `  trimaran topic delete-records events --before end --partition 0
  trimaran topic delete-records events --before end`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return deleteRecords(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	cmd.Flags().String("before", "", "the first `offset` to keep, or 'end' to keep none")
	cmd.Flags().Int32Slice("partition", nil, "partitions; all if none is given")
	return cmd
}

func deleteRecords(cmd *cobra.Command, name string) error {
	text, _ := cmd.Flags().GetString("before")
	before := int64(-1) // the high watermark
	if text != "end" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return usagef("--before %q: want an offset or 'end'", text)
		}
		before = n
	}
	partitions, _ := cmd.Flags().GetInt32Slice("partition")
	b, cl, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	if len(partitions) == 0 {
		count, err := partitionCount(ctx, b, cl, name)
		if err != nil {
			return err
		}
		for p := range count {
			partitions = append(partitions, p)
		}
	}
	timeout, _ := cmd.Flags().GetDuration("timeout")
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = int32(timeout.Milliseconds())
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = name
	for _, p := range slices.Compact(slices.Sorted(slices.Values(partitions))) {
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Partition, rp.Offset = p, before
		t.Partitions = append(t.Partitions, rp)
	}
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.DeleteRecordsResponse](ctx, b, cl, req)
	if err != nil {
		return err
	}
	return printDeleted(cmd, resp)
}

// printDeleted shows where partitions begin now, and what failed.
func printDeleted(cmd *cobra.Command, resp *kmsg.DeleteRecordsResponse) error {
	rows := [][]string{{"PARTITION", "START"}}
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			switch err := kerr.ErrorForCode(p.ErrorCode); {
			case errors.Is(err, kerr.OffsetOutOfRange):
				errs = append(errs, fmt.Errorf("partition %d of %s: the log ends below that offset; 'trimaran topic describe %s' shows where", p.Partition, t.Topic, t.Topic))
			case errors.Is(err, kerr.PolicyViolation):
				errs = append(errs, fmt.Errorf("partition %d of %s: the topic's cleanup.policy does not let records be deleted", p.Partition, t.Topic))
			case err != nil:
				errs = append(errs, fmt.Errorf("partition %d of %s: %w", p.Partition, t.Topic, explain(err, nil)))
			default:
				rows = append(rows, []string{fmt.Sprint(p.Partition), fmt.Sprint(p.LowWatermark)})
			}
		}
	}
	if len(rows) > 1 {
		if err := printTable(cmd.OutOrStdout(), rows); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
