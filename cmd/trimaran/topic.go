package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func newTopic() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topic",
		Short: "Create, list, describe, change and delete topics",
		Example: `  trimaran topic create events --partitions 6 --replication-factor 3
  trimaran topic list
  trimaran topic describe events
  trimaran topic delete events`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTopicCreate(), newTopicList(), newTopicDescribe(), newTopicAlter(), newTopicAddPartitions(), newTopicDeleteRecords(), newTopicDelete())
	return cmd
}

func newTopicCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a topic; returns when it can be used",
		Example: `  trimaran topic create events
  trimaran topic create events --partitions 6 --replication-factor 3
  trimaran topic create events --config max.message.bytes=1048576`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return createTopic(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.Int32("partitions", -1, "number of partitions; -1 is the cluster's default")
	f.Int16("replication-factor", -1, "nodes that hold each partition; -1 is the cluster's default")
	f.StringArray("config", nil, "a setting of the topic, `name=value`; can be given several times")
	f.String("config-file", "", "YAML, TOML or JSON `file` with settings of this command")
	f.Bool("if-not-exists", false, "succeed when a topic of that name is there already")
	f.Bool("dry-run", false, "only check whether it could be created")
	return cmd
}

func createTopic(cmd *cobra.Command, name string) error {
	f := cmd.Flags()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic = name
	t.NumPartitions, _ = f.GetInt32("partitions")
	t.ReplicationFactor, _ = f.GetInt16("replication-factor")
	given, _ := f.GetStringArray("config")
	for _, s := range given {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return usagef("--config %q: want name=value", s)
		}
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = key, &value
		t.Configs = append(t.Configs, c)
	}
	timeout, _ := f.GetDuration("timeout")
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(timeout.Milliseconds())
	req.ValidateOnly, _ = f.GetBool("dry-run")
	req.Topics = append(req.Topics, t)
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.CreateTopicsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if ok, _ := f.GetBool("if-not-exists"); ok && errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if err != nil {
			return fmt.Errorf("topic %s: %w", name, explain(err, t.ErrorMessage))
		}
	}
	return nil
}

func newTopicDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME…",
		Short:   "Delete topics with all their records",
		Example: "  trimaran topic delete events old-events",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return deleteTopics(cmd, args) },
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("if-exists", false, "succeed when there is no topic of that name")
	return cmd
}

func deleteTopics(cmd *cobra.Command, names []string) error {
	timeout, _ := cmd.Flags().GetDuration("timeout")
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(timeout.Milliseconds())
	for _, name := range names {
		req.TopicNames = append(req.TopicNames, name)
		t := kmsg.NewDeleteTopicsRequestTopic() // version 6 and later
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.DeleteTopicsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if ok, _ := cmd.Flags().GetBool("if-exists"); ok && errors.Is(err, kerr.UnknownTopicOrPartition) {
			continue
		}
		if err != nil && t.Topic != nil {
			errs = append(errs, fmt.Errorf("topic %s: %w", *t.Topic, explain(err, t.ErrorMessage)))
		}
	}
	return errors.Join(errs...)
}

// askOnce sends one request over a client made of the command's flags.
func askOnce[R kmsg.Response](ctx context.Context, cmd *cobra.Command, req kmsg.Request) (R, error) {
	var none R
	b, cl, err := clientOf(cmd)
	if err != nil {
		return none, err
	}
	defer cl.Close()
	return ask[R](ctx, b, cl, req)
}

// withTimeout gives the command's context, ended by --timeout.
func withTimeout(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	timeout, _ := cmd.Flags().GetDuration("timeout")
	return context.WithTimeout(cmd.Context(), timeout)
}

// explain says what an error of the server's means for a topic: in the server's
// own words if it sent any, else in ours, which the oldest versions leave no room for.
func explain(err error, text *string) error {
	if e := (*kerr.Error)(nil); errors.As(err, &e) && text != nil && *text != "" {
		return fmt.Errorf("%s (%s)", *text, e.Message)
	}
	for known, words := range map[*kerr.Error]string{
		kerr.TopicAlreadyExists:       "a topic of that name exists",
		kerr.UnknownTopicOrPartition:  "there is none of that name; 'trimaran topic list' shows all",
		kerr.InvalidTopicException:    "not a valid topic name: want 1 to 249 of letters, digits, '.', '_' and '-', and not one that differs from another only in '.' and '_'",
		kerr.InvalidPartitions:        "not a valid number of partitions",
		kerr.InvalidReplicationFactor: "the replication factor must be between 1 and the number of nodes; 'trimaran cluster status' shows the nodes",
		kerr.InvalidConfig:            "a setting is unknown or its value is out of bounds",
		kerr.RequestTimedOut:          "not done in time; it may be done yet: 'trimaran topic describe' tells",
	} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s (%s)", words, known.Message)
		}
	}
	return err
}

func newTopicList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the topics",
		Example: "  trimaran topic list\n  trimaran topic list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := statusFor(cmd)
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				err = printJSON(cmd.OutOrStdout(), topicNames(status))
			} else {
				err = printTable(cmd.OutOrStdout(), topicRows(status))
			}
			return cmp.Or(err, doubtOf(status))
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print the names as a JSON list")
	return cmd
}

func newTopicDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "describe [NAME…]",
		Short:   "Show partitions, leaders, replicas and offsets of topics",
		Example: "  trimaran topic describe\n  trimaran topic describe events\n  trimaran topic describe events --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := statusFor(cmd)
			if err != nil {
				return err
			}
			topics, err := pickTopics(status, args)
			if err != nil {
				return cmp.Or(doubtOf(status), err) // it may be there
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				err = printJSON(cmd.OutOrStdout(), topics)
			} else {
				err = describeTopics(cmd.OutOrStdout(), topics)
			}
			return cmp.Or(err, doubtOf(status))
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// statusFor asks for the cluster's status within the command's --timeout.
func statusFor(cmd *cobra.Command) (*admin.Status, error) {
	b, err := brokersOf(cmd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	status, _, err := askStatus(ctx, b)
	return status, err
}

func topicNames(status *admin.Status) []string {
	names := []string{}
	for _, t := range status.Topics {
		names = append(names, t.Name)
	}
	return names
}

func topicRows(status *admin.Status) [][]string {
	rows := [][]string{{"TOPIC", "PARTITIONS", "REPLICATION"}}
	for _, t := range status.Topics {
		rows = append(rows, []string{t.Name, fmt.Sprint(len(t.Partitions)), fmt.Sprint(t.ReplicationFactor)})
	}
	return rows
}

// pickTopics gives the topics of those names, or all.
func pickTopics(status *admin.Status, names []string) ([]admin.TopicStatus, error) {
	if len(names) == 0 {
		return status.Topics, nil
	}
	var picked []admin.TopicStatus
	for _, name := range names {
		i := slices.IndexFunc(status.Topics, func(t admin.TopicStatus) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("topic %s: there is none of that name; 'trimaran topic list' shows all", name)
		}
		picked = append(picked, status.Topics[i])
	}
	return picked, nil
}

func describeTopics(out io.Writer, topics []admin.TopicStatus) error {
	for i, t := range topics {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s  id %s, %d partitions, replication factor %d\n", terminal.Shown(t.Name), t.ID, len(t.Partitions), t.ReplicationFactor)
		for _, key := range slices.Sorted(maps.Keys(t.Configs)) {
			fmt.Fprintf(out, "  %s=%s\n", terminal.Shown(key), terminal.Shown(t.Configs[key]))
		}
		if err := printTable(out, partitionRows("", t.Partitions)); err != nil {
			return err
		}
	}
	return nil
}

// partitionRows gives a table of partitions, with a column for the topic if it is named.
func partitionRows(topic string, partitions []admin.PartitionStatus) [][]string {
	rows := [][]string{{"PARTITION", "LEADER", "TERM", "START", "END", "REPLICAS"}}
	for _, p := range partitions {
		leader := string(p.Leader)
		if leader == "" {
			leader = "none"
		}
		var replicas []string
		for _, r := range p.Replicas {
			text := string(r.Node)
			switch {
			case r.Role == "offline":
				text += " (offline)"
			case r.CatchUp != nil:
				text += fmt.Sprintf(" (copying, %s)", percent(r.CatchUp))
			case r.Error != "":
				text += " (damaged)"
			case r.Lag > 0:
				text += fmt.Sprintf(" (%d behind)", r.Lag)
			case r.Role == "non-voter":
				text += " (no voter yet)"
			}
			replicas = append(replicas, text)
		}
		rows = append(rows, []string{fmt.Sprint(p.Partition), leader, fmt.Sprint(p.Term),
			fmt.Sprint(p.LogStart), fmt.Sprint(p.HighWatermark), strings.Join(replicas, ", ")})
	}
	if topic != "" {
		for i := range rows {
			name := topic
			if i == 0 {
				name = "TOPIC"
			}
			rows[i] = append([]string{name}, rows[i]...)
		}
	}
	return rows
}

// printTable aligns the columns. A cell may hold anything.
func printTable(out io.Writer, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, terminal.Shown(cell))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
