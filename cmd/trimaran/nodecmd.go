package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
	"github.com/trimaran-io/trimaran/fsm"
)

func newNode() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node",
		Short:   "Take nodes out of work, out of the cluster, or replace them",
		Example: "  trimaran node list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeList(), newNodeDrain(), newNodeDecommission(), newNodeReplace())
	return cmd
}

func newNodeList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the nodes",
		Long: `Show the nodes. Where the catalog's leader does not confirm that these are all, this is
said, and the exit code is 1.`,
		Example: "  trimaran node list\n  trimaran node list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := statusFor(cmd)
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				err = printJSON(cmd.OutOrStdout(), status.Nodes)
			} else {
				err = printTable(cmd.OutOrStdout(), nodeRows(status))
			}
			return cmp.Or(err, doubtOf(status))
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func newNodeDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Have a node lead nothing, for instance before it is restarted; it keeps its replicas",
		Long: `Have a node lead nothing that another node can lead, and get no new replicas. It
keeps those it has and goes on answering clients. The state outlasts restarts;
--undo ends it.`,
		Example: "  trimaran node drain n2 --wait\n  trimaran node drain n2 --undo",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := admin.Request{Op: admin.OpDrain, Node: fsm.NodeID(args[0])}
			undo, _ := cmd.Flags().GetBool("undo")
			if undo {
				request.Op = admin.OpActivate
			}
			if undo {
				return administer(cmd, request, caughtUp(request.Node))
			}
			alone := 0
			err := administer(cmd, request, func(status *admin.Status) (text string, over bool) {
				alone, text, over = drained(status, request.Node)
				return text, over
			})
			if err == nil && alone > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d partitions have no replica but on %s, which goes on leading them: they are away while it is\n", alone, request.Node)
			}
			return err
		},
	}
	addAdminFlags(cmd, "wait until it leads nothing that another node could; with --undo, until its replicas have caught up")
	cmd.Flags().Bool("undo", false, "let it lead again; ends a decommission that is under way, too")
	return cmd
}

func newNodeDecommission() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decommission NODE",
		Short: "Move a node's replicas to others and take it out of the cluster",
		Long: `Move all replicas of a node to others, a few at a time, and then take it out of the
cluster. Its process ends by itself, and its data directory cannot be used again.
It is refused where the other nodes cannot hold what it has. 'node drain --undo'
stops it as long as the node is there. Asked for a second time it is granted.`,
		Example: "  trimaran node decommission n3 --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := fsm.NodeID(args[0])
			return takeOut(cmd, admin.Request{Op: admin.OpDecommission, Node: node})
		},
	}
	addAdminFlags(cmd, "wait until it has left the cluster")
	return cmd
}

func newNodeReplace() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replace NODE [SUCCESSOR]",
		Short: "Give the replicas of a node that is lost to another one, or to whichever suit",
		Long: `Give all replicas of a node to another one, or, if none is named, to whichever suit,
and take it out of the cluster. The node may be dead. Nodes that are away for longer
than --replace-after are replaced without being told to, but stay in the cluster.`,
		Example: "  trimaran node replace n3\n  trimaran node replace n3 n4 --wait",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := admin.Request{Op: admin.OpReplace, Node: fsm.NodeID(args[0])}
			if len(args) > 1 {
				request.Successor = fsm.NodeID(args[1])
			}
			return takeOut(cmd, request)
		},
	}
	addAdminFlags(cmd, "wait until it has left the cluster")
	return cmd
}

// drained tells what a node leads that another one could lead, and how many partitions are on that
// node alone.
func drained(status *admin.Status, node fsm.NodeID) (alone int, text string, over bool) {
	active := map[fsm.NodeID]bool{}
	// it does not answer, and whether it leads is not known of what nobody else leads
	silent := false
	for _, n := range status.Nodes {
		active[n.ID] = n.State == fsm.NodeActive
		silent = silent || n.ID == node && !n.Alive
	}
	held := 0
	count := func(p admin.PartitionStatus, alone *int) {
		holds := slices.ContainsFunc(p.Replicas, func(r admin.ReplicaStatus) bool { return r.Node == node })
		switch {
		case p.Leader != node && !(silent && holds && p.Leader == ""):
		case len(p.Replicas) == 1:
			*alone++
		case slices.ContainsFunc(p.Replicas, func(r admin.ReplicaStatus) bool { return r.Node != node && active[r.Node] }):
			held++
		}
	}
	for _, t := range status.Topics {
		for _, p := range t.Partitions {
			count(p, &alone)
		}
	}
	for _, p := range status.GroupShards {
		count(p, new(int)) // no partitions to who reads of it
	}
	return alone, fmt.Sprintf("node %s leads %d partitions", node, held), held == 0
}

// nearEnough is how many records a replica may be behind, by a status that is not of one moment,
// and count as caught up.
const nearEnough = 10_000

// caughtUp tells how many of a node's replicas are not yet what they should be.
func caughtUp(node fsm.NodeID) func(*admin.Status) (string, bool) {
	return func(status *admin.Status) (string, bool) {
		behind := 0
		eachReplica(status, func(_ string, p admin.PartitionStatus, r admin.ReplicaStatus) {
			switch {
			case r.Node != node:
			case r.Role == "offline", r.Role == "non-voter", r.CatchUp != nil, r.Error != "", r.Lag > nearEnough:
				behind++
			case p.Leader == "": // how far it is behind is not known
				behind++
			}
		})
		for _, n := range status.Nodes {
			if n.ID == node && !n.Alive {
				return fmt.Sprintf("node %s is not there", node), false
			}
		}
		return fmt.Sprintf("%d replicas of node %s are behind", behind, node), behind == 0
	}
}

func addAdminFlags(cmd *cobra.Command, wait string) {
	addBrokerFlags(cmd)
	cmd.Flags().Bool("wait", false, wait)
	addProgressFlag(cmd)
}

// takeOut asks for a node to leave and, with --wait, says when it has left.
func takeOut(cmd *cobra.Command, request admin.Request) error {
	err := administer(cmd, request, leftBehind(request.Node))
	if wait, _ := cmd.Flags().GetBool("wait"); err == nil && wait {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s has left the cluster\n", request.Node)
	}
	return err
}

// leftBehind tells what a node that leaves still holds. It has left when the catalog does not name
// it, and when it has no vote in the catalog's group either: as long as it has one the others need
// each other more.
func leftBehind(node fsm.NodeID) func(*admin.Status) (string, bool) {
	return func(status *admin.Status) (string, bool) {
		there, tells := false, false
		for _, n := range status.Nodes {
			there = there || n.ID == node
			// Who leads the catalog says who votes, unless its program is older.
			tells = tells || n.ID == status.Controller && (n.FeatureLevel < 3 || len(status.CatalogVoters) > 0)
		}
		votes := slices.ContainsFunc(status.CatalogVoters, func(identity string) bool {
			name, _, _ := strings.Cut(identity, ".")
			return name == string(node)
		})
		switch {
		case !there && !tells:
			return fmt.Sprintf("node %s holds nothing; who votes in the catalog is not known now", node), false
		case !there && votes:
			return fmt.Sprintf("node %s holds nothing; it still has a vote in the catalog", node), false
		case !there:
			return "", true
		}
		held, copying, bytes, total := 0, 0, int64(0), int64(0)
		eachReplica(status, func(_ string, _ admin.PartitionStatus, r admin.ReplicaStatus) {
			if r.Node == node {
				held++
			}
			if r.CatchUp != nil {
				copying++
				bytes += r.CatchUp.Bytes
				total += r.CatchUp.Total
			}
		})
		text := fmt.Sprintf("node %s holds %d replicas", node, held)
		if copying > 0 {
			text += fmt.Sprintf("; %d copied elsewhere, %s of %s", copying, showBytes(bytes), showBytes(total))
		}
		return text, false
	}
}

// administer asks for something, again while the catalog has no leader, and, with --wait, waits
// until done says so. done also tells how far it is.
func administer(cmd *cobra.Command, request admin.Request, done func(*admin.Status) (string, bool)) error {
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var answer admin.Answer
	err = askRounds(ctx, b, administerKey, body, forever, func(raw []byte) (bool, error) {
		answer = admin.Answer{}
		err := decodeOwn(raw, &answer)
		return !answer.Retriable, err
	})
	if err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if wait, _ := cmd.Flags().GetBool("wait"); !wait {
		return nil
	}
	return waitFor(cmd.Context(), b, progressOf(cmd), done)
}

// forever is longer than any --timeout.
const forever = time.Duration(math.MaxInt64)

// waitFor polls the status, and believes only one that the catalog's leader has confirmed. It has
// no deadline: moving takes as long as there is to copy, and can be interrupted.
func waitFor(ctx context.Context, b *brokers, progress io.Writer, done func(*admin.Status) (string, bool)) error {
	shown := false
	show := func(text string) {
		if progress != nil && text != "" {
			fmt.Fprintf(progress, "\r\033[K%s", terminal.Shown(text))
			shown = true
		}
	}
	defer func() {
		if shown {
			fmt.Fprintln(progress)
		}
	}()
	for {
		asked, cancel := context.WithTimeout(ctx, 10*time.Second)
		status, _, err := askStatus(asked, b)
		cancel()
		if err == nil {
			err = doubtOf(status)
		}
		if err == nil {
			text, over := done(status)
			show(text)
			if over {
				return nil
			}
		} else if status != nil {
			show(err.Error())
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted; it goes on by itself")
		case <-time.After(500 * time.Millisecond):
		}
	}
}
