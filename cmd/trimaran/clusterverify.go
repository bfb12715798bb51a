package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
	"github.com/trimaran-io/trimaran/fsm"
)

func newClusterVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify TOPIC",
		Short: "Compare what the replicas of a topic have on disk",
		Long: `Have every replica that is online read a topic's records from its own disk, and
compare them by a hash over offsets and batches. Replicas that are offline, copying
or damaged are named. The exit code is 1 if any differ or are damaged.`,
		Example: "  trimaran cluster verify events\n  trimaran cluster verify events --json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return clusterVerify(cmd, args[0]) },
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	addProgressFlag(cmd)
	return cmd
}

// verifiedPartition is what the checks of all parts of a partition say together.
type verifiedPartition struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	From      fsm.Offset        `json:"from"`
	To        fsm.Offset        `json:"to"`
	Same      bool              `json:"same"`     // of all that could be compared
	Compared  int               `json:"compared"` // replicas
	Differs   []differing       `json:"differs,omitempty"`
	Replicas  []verifiedReplica `json:"replicas"`
}

type differing struct {
	From   fsm.Offset            `json:"from"`
	To     fsm.Offset            `json:"to"`
	Hashes map[fsm.NodeID]string `json:"hashes"` // of the part that it was found in
}

type verifiedReplica struct {
	Node  fsm.NodeID `json:"node"`
	State string     `json:"state"`
	Error string     `json:"error,omitempty"`
	Bytes int64      `json:"bytes"`
}

// maxDiffering is how many differences of a partition are looked for.
const maxDiffering = 10

func clusterVerify(cmd *cobra.Command, name string) error {
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(cmd)
	status, _, err := askStatus(ctx, b)
	cancel()
	if err != nil {
		return err
	}
	topics, err := pickTopics(status, []string{name})
	if err != nil {
		return cmp.Or(doubtOf(status), err) // it may be there
	}
	shown := progressOf(cmd)
	asJSON, _ := cmd.Flags().GetBool("json")
	all := []*verifiedPartition{}
	wrong := 0
	for _, p := range topics[0].Partitions {
		v, err := verifyPartition(cmd, b, name, p.Partition, func(c *admin.PartitionCheck) {
			if shown != nil {
				fmt.Fprintf(shown, "\r%s-%d: offset %d of %d  ", name, p.Partition, c.To, c.End)
			}
		})
		if shown != nil {
			fmt.Fprintf(shown, "\r%60s\r", "")
		}
		if err != nil {
			return fmt.Errorf("partition %d of %s: %w", p.Partition, name, err)
		}
		if !v.good() {
			wrong++
		}
		if all = append(all, v); !asJSON {
			fmt.Fprint(cmd.OutOrStdout(), v.text())
		}
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d partitions are not the same on all replicas", wrong, len(all))
	}
	return nil
}

// verifyPartition goes through a partition part by part.
func verifyPartition(cmd *cobra.Command, b *brokers, topic string, partition int32, progress func(*admin.PartitionCheck)) (*verifiedPartition, error) {
	// how often retention may be faster, and how often replicas that are being compacted are waited
	// for
	const moved, compacted = 5, 12
	v := &verifiedPartition{Topic: topic, Partition: partition, From: -1, Same: true}
	timeout, _ := cmd.Flags().GetDuration("timeout")
	next := fsm.Offset(-1)
	for tries := 0; ; {
		// A part is some tens of megabytes on each replica's disk.
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout+time.Minute)
		c, err := askReplicaCheck(ctx, b, topic, partition, next)
		cancel()
		if errors.Is(err, kerr.OffsetOutOfRange) && tries < moved {
			tries++
			continue
		}
		if errors.Is(err, kerr.RequestTimedOut) && tries < compacted {
			tries++
			continue
		}
		if err != nil {
			return nil, err
		}
		tries = 0
		v.add(c)
		progress(c)
		if c.To >= c.End || c.To <= next || len(v.Differs) >= maxDiffering {
			return v, nil
		}
		next = c.To
	}
}

func (v *verifiedPartition) add(c *admin.PartitionCheck) {
	if v.From < 0 {
		v.From = c.From
		for _, r := range c.Replicas {
			v.Replicas = append(v.Replicas, verifiedReplica{Node: r.Node, State: r.State})
		}
	}
	v.To = c.To
	compared := 0
	for i, r := range c.Replicas {
		if r.State == "checked" {
			compared++
		}
		if i >= len(v.Replicas) {
			continue
		}
		have := &v.Replicas[i]
		have.Bytes += r.Bytes
		if r.State != "checked" {
			have.State, have.Error = r.State, r.Error
		}
	}
	v.Compared = compared
	if c.DiffersAt >= 0 {
		v.Same = false
		d := differing{From: c.DiffersAt, To: c.DiffersTo, Hashes: map[fsm.NodeID]string{}}
		for _, r := range c.Replicas {
			if r.Hash != "" {
				d.Hashes[r.Node] = r.Hash
			}
		}
		v.Differs = append(v.Differs, d)
	}
}

func (v *verifiedPartition) good() bool {
	for _, r := range v.Replicas {
		if r.State == "damaged" {
			return false
		}
	}
	return v.Same
}

// text is a line for the partition, and one for each difference.
func (v *verifiedPartition) text() string {
	var names, away []string
	var bytes int64
	for _, r := range v.Replicas {
		if r.State == "checked" {
			names = append(names, string(r.Node))
		} else {
			away = append(away, terminal.Shown(fmt.Sprintf("%s is %s", r.Node, r.State)))
		}
		bytes = max(bytes, r.Bytes)
	}
	verdict := "same"
	switch {
	case !v.Same:
		verdict = "DIFFERENT"
	case v.Compared < 2:
		verdict = "nothing to compare with"
	}
	out := fmt.Sprintf("%s-%d  %s  offsets %d to %d, %s, on %s", v.Topic, v.Partition, verdict, v.From, v.To, showBytes(bytes), orDash(strings.Join(names, ", ")))
	if len(away) > 0 {
		out += "; " + strings.Join(away, ", ")
	}
	out += "\n"
	for _, d := range v.Differs {
		out += fmt.Sprintf("  from offset %d to %d:", d.From, d.To)
		for _, r := range v.Replicas {
			if hash := d.Hashes[r.Node]; len(hash) >= 12 {
				out += fmt.Sprintf("  %s %s", r.Node, hash[:12])
			}
		}
		out += "\n"
	}
	for _, r := range v.Replicas {
		if r.Error != "" {
			out += fmt.Sprintf("  %s: %s\n", r.Node, terminal.Shown(r.Error))
		}
	}
	return out
}
