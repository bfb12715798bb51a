package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
	"github.com/trimaran-io/trimaran/fsm"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cluster",
		Short:   "Look at the cluster",
		Example: "  trimaran cluster status",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterStatus(), newClusterVerify())
	return cmd
}

func newClusterStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, partitions, leaders and how far replicas are behind",
		Long: `Show nodes, partitions, leaders and how far replicas are behind. Where the catalog's
leader does not confirm it, since the node asked has just started or there is no such
leader, this is said, and the exit code is 1; what is shown may be old then.`,
		Example: `  trimaran cluster status
  trimaran cluster status --brokers ws://127.0.0.1:9093
  trimaran cluster status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := brokersOf(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := withTimeout(cmd)
			defer cancel()
			status, raw, err := askStatus(ctx, b)
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				// As the node gave it: a newer node may say more than this program knows.
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, raw, "", "  "); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), pretty.String())
				return cmp.Or(err, doubtOf(status))
			}
			return cmp.Or(showStatus(cmd.OutOrStdout(), status), doubtOf(status))
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func showStatus(out io.Writer, status *admin.Status) error {
	if status.ClusterID == "" || len(status.Nodes) == 0 {
		return nil // doubtOf says why
	}
	alive := 0
	for _, n := range status.Nodes {
		if n.Alive {
			alive++
		}
	}
	leaderless, partitions, moving := 0, 0, 0
	groups := partitionRows("TOPIC", nil)
	for _, t := range status.Topics {
		for _, p := range t.Partitions {
			partitions++
			if p.Leader == "" {
				leaderless++
			}
			for _, r := range p.Replicas {
				if r.Leaving {
					moving++
					break
				}
			}
		}
		groups = append(groups, partitionRows(t.Name, t.Partitions)[1:]...)
	}
	catalog := "led by " + string(status.Controller)
	if status.Controller == "" {
		catalog = "WITHOUT A LEADER"
	}
	fmt.Fprintf(out, "Cluster %s: %d of %d nodes up, catalog %s, %d topics, %d partitions",
		terminal.Shown(status.ClusterID), alive, len(status.Nodes), terminal.Shown(catalog), len(status.Topics), partitions)
	if leaderless > 0 {
		fmt.Fprintf(out, ", %d WITHOUT A LEADER", leaderless)
	}
	if moving > 0 {
		fmt.Fprintf(out, ", %d on the move", moving)
	}
	fmt.Fprint(out, "\n\n")
	if err := printTable(out, nodeRows(status)); err != nil {
		return err
	}
	if partitions > 0 {
		fmt.Fprintln(out)
		if err := printTable(out, groups); err != nil {
			return err
		}
	}
	if len(status.GroupShards) > 0 {
		fmt.Fprint(out, "\n", terminal.Shown(groupShardsText(status)), "\n")
	}
	for _, text := range []string{compactionText(status, time.Now()), backupText(status, time.Now())} {
		if text != "" {
			fmt.Fprint(out, "\n", terminal.Shown(text), "\n")
		}
	}
	for _, rows := range [][][]string{tierRows(status), copyingRows(status), damagedRows(status)} {
		if len(rows) > 1 {
			fmt.Fprintln(out)
			if err := printTable(out, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

func nodeRows(status *admin.Status) [][]string {
	rows := [][]string{{"NODE", "STATE", "CLIENTS", "PEERS", "ZONE", "VERSION", "CATALOG", "LEADS", "REPLICAS", "DISK FREE"}}
	for _, n := range status.Nodes {
		state := "down"
		if n.Alive {
			state = "up"
		}
		if n.State != fsm.NodeActive {
			state += ", " + string(n.State)
		}
		rows = append(rows, []string{string(n.ID), state, orDash(n.ClientAddress), orDash(n.PeerAddress),
			orDash(n.Zone), orDash(n.Version), orDash(n.CatalogRole), fmt.Sprint(n.Leaders), fmt.Sprint(n.Replicas), diskText(n)})
	}
	return rows
}

func diskText(n admin.NodeStatus) string {
	if n.DiskTotal <= 0 {
		return "-"
	}
	text := fmt.Sprintf("%s (%d%%)", showBytes(n.DiskFree), 100*n.DiskFree/n.DiskTotal)
	if n.DiskFull {
		text += ", FULL: takes no records"
	}
	return text
}

// copyingRows is a table of the replicas that copy what they lack.
func copyingRows(status *admin.Status) [][]string {
	rows := [][]string{{"COPYING", "PARTITION", "NODE", "COPIED", "OF ABOUT", "DONE", "RATE", "LEFT"}}
	eachReplica(status, func(topic string, p admin.PartitionStatus, r admin.ReplicaStatus) {
		c := r.CatchUp
		if c == nil {
			return
		}
		left := "-"
		if c.BytesPerSecond > 0 {
			left = (time.Duration(max(c.Total-c.Bytes, 0)/c.BytesPerSecond) * time.Second).String()
		}
		rows = append(rows, []string{topic, fmt.Sprint(p.Partition), string(r.Node), showBytes(c.Bytes), showBytes(c.Total),
			percent(c), showBytes(c.BytesPerSecond) + "/s", left})
	})
	return rows
}

func percent(c *admin.CatchUpStatus) string {
	return fmt.Sprintf("%d%%", min(100*c.Bytes/max(c.Total, 1), 100))
}

// tierRows is a table of the topics that have something in the tier's store, or should.
func tierRows(status *admin.Status) [][]string {
	rows := [][]string{{"IN THE TIER", "PARTITIONS", "SEGMENTS", "RECORDS", "STILL TO GO THERE", "TO BE DELETED", "WHY NOT"}}
	for _, t := range status.Topics {
		var sum admin.TierStatus
		partitions, failed, unseen := 0, "", ""
		for _, p := range t.Partitions {
			if p.Tier == nil {
				continue
			}
			partitions++
			sum.Segments, sum.Bytes = sum.Segments+p.Tier.Segments, sum.Bytes+p.Tier.Bytes
			sum.Waiting, sum.ToDelete = sum.Waiting+p.Tier.Waiting, sum.ToDelete+p.Tier.ToDelete
			failed = cmp.Or(failed, p.Tier.Error)
			for _, r := range p.Replicas {
				if r.Unseen != "" {
					unseen = cmp.Or(unseen, fmt.Sprintf("node %s: %s", r.Node, r.Unseen))
				}
			}
		}
		if partitions > 0 {
			rows = append(rows, []string{t.Name, fmt.Sprint(partitions), fmt.Sprint(sum.Segments), showBytes(sum.Bytes), showBytes(sum.Waiting), fmt.Sprint(sum.ToDelete), orDash(cmp.Or(failed, unseen))})
		}
	}
	return rows
}

// damagedRows is a table of the replicas that do not run, and why.
func damagedRows(status *admin.Status) [][]string {
	rows := [][]string{{"DAMAGED", "PARTITION", "NODE", "WHY"}}
	eachReplica(status, func(topic string, p admin.PartitionStatus, r admin.ReplicaStatus) {
		if r.Error != "" {
			rows = append(rows, []string{topic, fmt.Sprint(p.Partition), string(r.Node), r.Error})
		}
	})
	return rows
}

// eachReplica visits the replicas of topics, and of the shards of consumer groups.
func eachReplica(status *admin.Status, f func(topic string, p admin.PartitionStatus, r admin.ReplicaStatus)) {
	each := func(topic string, partitions []admin.PartitionStatus) {
		for _, p := range partitions {
			for _, r := range p.Replicas {
				f(topic, p, r)
			}
		}
	}
	for _, t := range status.Topics {
		each(t.Name, t.Partitions)
	}
	each(fsm.GroupShardsName, status.GroupShards)
}

// compactionText is the line of `cluster status` about compaction, "" where no topic is compacted
// and no node has compacted anything.
func compactionText(status *admin.Status, now time.Time) string {
	partitions, waiting, dirtiest, ratio := 0, 0, "", 0.0
	for _, t := range status.Topics {
		for _, p := range t.Partitions {
			compacted := false
			for _, r := range p.Replicas {
				c := r.Compaction
				if c == nil {
					continue
				}
				compacted = true
				if c.Waits {
					waiting++
				}
				if dirtiest == "" || c.DirtyRatio > ratio {
					dirtiest, ratio = fmt.Sprintf("%s-%d", t.Name, p.Partition), c.DirtyRatio
				}
			}
			if compacted {
				partitions++
			}
		}
	}
	last, saved, by := int64(0), int64(0), fsm.NodeID("")
	for _, n := range status.Nodes {
		if c := n.Compaction; c != nil {
			saved += c.Saved
			if c.LastMs > last {
				last, by = c.LastMs, n.ID
			}
		}
	}
	if partitions == 0 && last == 0 {
		return ""
	}
	text := fmt.Sprintf("Compaction: of %d partitions", partitions)
	if dirtiest != "" {
		text += fmt.Sprintf(", the dirtiest is %s (%.0f%%)", dirtiest, 100*ratio)
	}
	if waiting > 0 {
		text += fmt.Sprintf(", %d replicas have to follow", waiting)
	}
	if last == 0 {
		return text + "; no round yet"
	}
	return text + fmt.Sprintf("; last round %s ago by %s; %s saved since the nodes were started",
		max(now.Sub(time.UnixMilli(last)).Round(time.Second), 0), by, showBytes(max(saved, 0)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
