package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func newTransaction() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "transaction",
		Short:   "Look at transactions, abort them, find those that hang",
		Example: "  trimaran transaction list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTransactionList(), newTransactionDescribe(), newTransactionAbort(), newTransactionFindHanging())
	return cmd
}

// withTransactions is withGroups for who needs the client itself, too.
func withTransactions(cmd *cobra.Command, f func(ctx context.Context, cl *kgo.Client, adm *kadm.Client) error) error {
	b, cl, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	if _, err := partitionsOf(ctx, b, cl); err != nil { // say early that nobody is there
		return err
	}
	if err := f(ctx, cl, kadm.NewClient(cl)); errors.Is(err, context.DeadlineExceeded) {
		return b.unreachable(err)
	} else if err != nil {
		return err
	}
	return nil
}

// listedTransaction is what `transaction list` knows of a transactional id.
type listedTransaction struct {
	ID         string `json:"transactional_id"`
	State      string `json:"state"`
	ProducerID int64  `json:"producer_id"`
	// See exact.
	IDBase64 string `json:"transactional_id_base64,omitempty"`
}

func newTransactionList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show transactional ids and the states of their transactions",
		Long: "Show transactional ids and the states of their transactions: Empty, Ongoing, PrepareCommit or\n" +
			"PrepareAbort (decided, and not yet everywhere), CompleteCommit, CompleteAbort.",
		Example: "  trimaran transaction list\n  trimaran transaction list --state Ongoing --longer-than 1m --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := kmsg.NewPtrListTransactionsRequest()
			req.StateFilters, _ = cmd.Flags().GetStringSlice("state")
			if cmd.Flags().Changed("longer-than") {
				longer, _ := cmd.Flags().GetDuration("longer-than")
				req.DurationFilterMillis = longer.Milliseconds()
			}
			return withTransactions(cmd, func(ctx context.Context, cl *kgo.Client, _ *kadm.Client) error {
				resp, err := req.RequestWith(ctx, cl)
				if err == nil {
					err = kerr.ErrorForCode(resp.ErrorCode)
				}
				if err != nil {
					return err
				}
				if len(resp.UnknownStateFilters) > 0 {
					return fmt.Errorf("no transaction is ever in the state %q", resp.UnknownStateFilters[0])
				}
				all := []listedTransaction{}
				for _, t := range resp.TransactionStates {
					all = append(all, listedTransaction{t.TransactionalID, t.TransactionState, t.ProducerID, exact(t.TransactionalID)})
				}
				slices.SortFunc(all, func(a, b listedTransaction) int { return strings.Compare(a.ID, b.ID) })
				if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				rows := [][]string{{"TRANSACTIONAL ID", "STATE", "PRODUCER ID"}}
				for _, t := range all {
					rows = append(rows, []string{t.ID, t.State, fmt.Sprint(t.ProducerID)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().StringSlice("state", nil, "only those in this state; may be given several times")
	cmd.Flags().Duration("longer-than", 0, "only transactions that have been open for longer, such as 1m")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// describedTransaction is what `transaction describe` knows of a transactional id.
type describedTransaction struct {
	ID            string             `json:"transactional_id"`
	State         string             `json:"state"`
	ProducerID    int64              `json:"producer_id"`
	ProducerEpoch int16              `json:"producer_epoch"`
	TimeoutMs     int32              `json:"timeout_ms"`
	StartedMs     int64              `json:"started_ms"` // since epoch; -1: none is open
	Partitions    map[string][]int32 `json:"partitions"`
	IDBase64      string             `json:"transactional_id_base64,omitempty"`
}

func newTransactionDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "describe TRANSACTIONAL-ID",
		Short:   "Show a transactional id's producer, and what its transaction touches",
		Example: "  trimaran transaction describe payments\n  trimaran transaction describe payments --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withTransactions(cmd, func(ctx context.Context, _ *kgo.Client, adm *kadm.Client) error {
				d, err := describeTransaction(ctx, adm, args[0])
				if err != nil {
					return err
				}
				if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
					return printJSON(cmd.OutOrStdout(), d)
				}
				return d.print(cmd)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func describeTransaction(ctx context.Context, adm *kadm.Client, id string) (*describedTransaction, error) {
	answers, err := adm.DescribeTransactions(ctx, id)
	if err != nil {
		return nil, err
	}
	t, ok := answers[id]
	switch {
	case !ok:
		return nil, fmt.Errorf("transactional id %s: no answer about it", id)
	case errors.Is(t.Err, kerr.TransactionalIDNotFound):
		return nil, fmt.Errorf("transactional id %s: nobody has it; 'trimaran transaction list' shows all", id)
	case t.Err != nil:
		return nil, fmt.Errorf("transactional id %s: %w", id, t.Err)
	}
	d := &describedTransaction{ID: id, State: t.State, ProducerID: t.ProducerID, ProducerEpoch: t.ProducerEpoch, TimeoutMs: t.TimeoutMillis,
		StartedMs: t.StartTimestamp, Partitions: map[string][]int32{}, IDBase64: exact(id)}
	for topic, partitions := range t.Topics {
		for p := range partitions {
			d.Partitions[topic] = append(d.Partitions[topic], p)
		}
		slices.Sort(d.Partitions[topic])
	}
	return d, nil
}

func (d *describedTransaction) print(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Transactional id %s: %s, producer %d with epoch %d, timeout %v", terminal.Shown(d.ID), terminal.Shown(d.State),
		d.ProducerID, d.ProducerEpoch, time.Duration(d.TimeoutMs)*time.Millisecond)
	if d.StartedMs > 0 {
		fmt.Fprintf(out, ", open since %s", shownTime(d.StartedMs))
	}
	fmt.Fprintln(out)
	if len(d.Partitions) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	rows := [][]string{{"TOPIC", "PARTITION"}}
	for _, topic := range slices.Sorted(maps.Keys(d.Partitions)) {
		for _, p := range d.Partitions[topic] {
			rows = append(rows, []string{topic, fmt.Sprint(p)})
		}
	}
	return printTable(out, rows)
}

func newTransactionAbort() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "abort [TRANSACTIONAL-ID]",
		Short: "Abort a transaction, or what hangs in a partition",
		Long: "Abort the transaction of a transactional id. Its producer is fenced: it is told so when it asks for\n" +
			"something next, and has to begin anew.\n\n" +
			"What hangs in a partition, which 'trimaran transaction find-hanging' shows, no coordinator knows of any\n" +
			"more. It is named by --topic, --partition and --start-offset, and aborted there alone.",
		Example: "  trimaran transaction abort payments",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, _ := cmd.Flags().GetString("topic")
			partition, _ := cmd.Flags().GetInt32("partition")
			start, _ := cmd.Flags().GetInt64("start-offset")
			switch hanging := topic != "" && partition >= 0 && start >= 0; {
			case len(args) == 1 && (topic != "" || partition >= 0 || start >= 0):
				return errors.New("a transactional id, or --topic, --partition and --start-offset, and not both")
			case len(args) == 0 && !hanging:
				return errors.New("a transactional id, or --topic, --partition and --start-offset, says what is to be aborted")
			}
			return withTransactions(cmd, func(ctx context.Context, cl *kgo.Client, adm *kadm.Client) error {
				if len(args) == 1 {
					return fence(ctx, cl, adm, args[0])
				}
				return abortHanging(ctx, adm, topic, partition, start)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().String("topic", "", "topic of what hangs")
	cmd.Flags().Int32("partition", -1, "its partition")
	cmd.Flags().Int64("start-offset", -1, "offset at which it begins there")
	return cmd
}

// fence takes the transactional id over, which aborts what its producer has open.
func fence(ctx context.Context, cl *kgo.Client, adm *kadm.Client, id string) error {
	d, err := describeTransaction(ctx, adm, id)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &id, d.TimeoutMs
	for {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		err = kerr.ErrorForCode(resp.ErrorCode)
		if !errors.Is(err, kerr.ConcurrentTransactions) { // that is: the abort is on its way
			if err != nil {
				return fmt.Errorf("transactional id %s: %w", id, err)
			}
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// abortHanging writes a marker for whoever has a transaction open in the partition from that offset
// on.
func abortHanging(ctx context.Context, adm *kadm.Client, topic string, partition int32, start int64) error {
	var on kadm.TopicsSet
	on.Add(topic, partition)
	described, err := adm.DescribeProducers(ctx, on)
	if err != nil {
		return err
	}
	p := described[topic].Partitions[partition]
	if p.Err != nil {
		return fmt.Errorf("partition %d of %s: %w", partition, topic, p.Err)
	}
	for _, producer := range p.ActiveProducers {
		if producer.CurrentTxnStartOffset != start {
			continue
		}
		written, err := adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch,
			CoordinatorEpoch: producer.CoordinatorEpoch, Topics: on})
		if err == nil {
			err = written[producer.ProducerID].Topics[topic].Partitions[partition].Err
		}
		if err != nil {
			return fmt.Errorf("partition %d of %s: %w", partition, topic, err)
		}
		return nil
	}
	return fmt.Errorf("partition %d of %s: no transaction begins at offset %d; 'trimaran transaction find-hanging' shows those that hang", partition, topic, start)
}

// hangingTransaction is open in a partition, and no coordinator will end it.
type hangingTransaction struct {
	Topic         string `json:"topic"`
	Partition     int32  `json:"partition"`
	StartOffset   int64  `json:"start_offset"`
	ProducerID    int64  `json:"producer_id"`
	ProducerEpoch int16  `json:"producer_epoch"`
	LastMs        int64  `json:"last_record_ms"` // since epoch
}

func newTransactionFindHanging() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "find-hanging",
		Short: "Show transactions that are open in partitions and that no coordinator knows of",
		Long: "Show transactions that are open in partitions, whose last record is older than --older-than, and that\n" +
			"the coordinator of their producer knows nothing of. Readers with isolation level read_committed stand\n" +
			"still before them. 'trimaran transaction abort' ends them.",
		Example: "  trimaran transaction find-hanging\n  trimaran transaction find-hanging --topic events --older-than 1m --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			topics, _ := cmd.Flags().GetStringSlice("topic")
			older, _ := cmd.Flags().GetDuration("older-than")
			return withTransactions(cmd, func(ctx context.Context, _ *kgo.Client, adm *kadm.Client) error {
				all, err := findHanging(ctx, adm, topics, time.Now().Add(-older).UnixMilli())
				if err != nil {
					return err
				}
				if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				rows := [][]string{{"TOPIC", "PARTITION", "START OFFSET", "PRODUCER ID", "EPOCH", "LAST RECORD"}}
				for _, h := range all {
					rows = append(rows, []string{h.Topic, fmt.Sprint(h.Partition), fmt.Sprint(h.StartOffset), fmt.Sprint(h.ProducerID), fmt.Sprint(h.ProducerEpoch), shownTime(h.LastMs)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().StringSlice("topic", nil, "only in this topic; may be given several times")
	cmd.Flags().Duration("older-than", 15*time.Minute, "age of the last record; below the longest timeout of a transaction one may be on its way")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func findHanging(ctx context.Context, adm *kadm.Client, topics []string, before int64) ([]hangingTransaction, error) {
	details, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for _, d := range details.Sorted() {
		if d.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", d.Topic, d.Err)
		}
	}
	hanging := []hangingTransaction{}
	if len(details) == 0 {
		return hanging, nil
	}
	described, err := adm.DescribeProducers(ctx, details.TopicsSet())
	if err != nil {
		return nil, err
	}
	ids := map[int64]bool{}
	for _, p := range described.SortedPartitions() {
		if p.Err != nil {
			return nil, fmt.Errorf("partition %d of %s: %w", p.Partition, p.Topic, p.Err)
		}
		for _, producer := range p.ActiveProducers.Sorted() {
			if producer.CurrentTxnStartOffset >= 0 && producer.LastTimestamp < before {
				ids[producer.ProducerID] = true
				hanging = append(hanging, hangingTransaction{Topic: p.Topic, Partition: p.Partition, StartOffset: producer.CurrentTxnStartOffset,
					ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch, LastMs: producer.LastTimestamp})
			}
		}
	}
	if len(hanging) == 0 {
		return hanging, nil
	}
	coordinated, err := transactionsOf(ctx, adm, slices.Sorted(maps.Keys(ids)))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(hanging, func(h hangingTransaction) bool {
		t, known := coordinated[h.ProducerID]
		return known && slices.Contains(t.Partitions[h.Topic], h.Partition)
	}), nil
}

// transactionsOf gives what is coordinated for these producer ids.
func transactionsOf(ctx context.Context, adm *kadm.Client, producers []int64) (map[int64]*describedTransaction, error) {
	listed, err := adm.ListTransactions(ctx, producers, nil)
	if err != nil {
		return nil, err
	}
	of := map[int64]*describedTransaction{}
	for _, t := range listed.Sorted() {
		if of[t.ProducerID], err = describeTransaction(ctx, adm, t.TxnID); err != nil {
			return nil, err
		}
	}
	return of, nil
}
