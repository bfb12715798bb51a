package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/cluster/lostquorum"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func newRecover() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Make groups go on that have lost a majority for good",
		Long: `Make the nodes that are left of a cluster serve again when a majority of the replicas
of something is gone for good: of the catalog, of partitions, of shards of consumer groups.
Whatever only the lost nodes had is lost, and it is said from which offsets on that may be.

All nodes must be stopped, and none of those that are named with --lost may ever come back
with its data directory. Every other node is a survivor: this command is run on each, with
its own --data, the same --lost, and in --survey the surveys of all the others ('trimaran
recover survey'). All of them print the same id of the recovered cluster.

Run it as the user that the node runs as. Nothing is changed without --apply. With it, what
is changed is copied first. A group of which a majority survives is left as it is; without
a group that has lost its majority and can go on the command refuses. Of what no survivor
has it says where it was and what can be done: nothing brings it back but a backup. It may
be run again, and goes on where it was cut.`,
		Example: `  # one node of three is left
  trimaran recover --data /var/lib/trimaran --lost n2,n3
  trimaran recover --data /var/lib/trimaran --lost n2,n3 --apply

  # n1 and n4 are left of five: on each of them, and the same on the other one with n1.json
  trimaran recover survey --data /var/lib/trimaran > n4.json
  trimaran recover --data /var/lib/trimaran --lost n2,n3,n5 --survey n4.json --apply`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return recoverNode(cmd) },
	}
	cmd.Flags().String("data", "", "data `directory` of this stopped node")
	cmd.Flags().StringSlice("lost", nil, "`names` of all nodes that are gone for good, separated by commas")
	cmd.Flags().StringSlice("survey", nil, "`files` with the surveys of all other survivors")
	cmd.Flags().Bool("apply", false, "do it; without it, it is only said what would be done")
	cmd.Flags().Bool("others-run", false, "do it though somebody listens where other nodes of the cluster were")
	cmd.Flags().Bool("json", false, "print JSON")
	cmd.AddCommand(newRecoverSurvey())
	return cmd
}

func newRecoverSurvey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "survey",
		Short: "Print what a stopped node has, for 'trimaran recover' on the others",
		Long: `Print what a stopped node has of each group, as JSON: how far its log goes, and who is in
the group. Nothing is changed. The node must not be started between this and the recovery.`,
		Example: "  trimaran recover survey --data /var/lib/trimaran > n1.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			r, err := openRecovery(cmd)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			if plan, err := r.Begun(); err != nil || plan != nil {
				return errors.Join(err, errors.New("a recovery was begun here: finish it with 'trimaran recover --apply'"))
			}
			s, err := r.Survey()
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().String("data", "", "data `directory` of this stopped node")
	return cmd
}

func openRecovery(cmd *cobra.Command) (*cluster.Recovery, error) {
	data, _ := cmd.Flags().GetString("data")
	if data == "" {
		return nil, usagef("--data is needed: the data directory of this node")
	}
	return cluster.OpenRecovery(data, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
}

// recovered is what the command prints as JSON.
type recovered struct {
	*lostquorum.Plan
	Node        string `json:"node"` // the identity of the node here
	RecoveredID string `json:"recovered_id"`
	Applied     bool   `json:"applied"`
	Copies      string `json:"copies,omitempty"`
}

func recoverNode(cmd *cobra.Command) (err error) {
	lost, _ := cmd.Flags().GetStringSlice("lost")
	apply, _ := cmd.Flags().GetBool("apply")
	asJSON, _ := cmd.Flags().GetBool("json")
	r, err := openRecovery(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	plan, err := r.Begun()
	if err != nil {
		return err
	}
	begun := plan != nil
	if !begun {
		if len(lost) == 0 {
			return usagef("--lost is needed: the names of all nodes that are gone for good")
		}
		plan, err = makePlan(cmd, r, lost)
		if err != nil && r.Without(lost) {
			return nothingToDo(cmd.OutOrStdout(), r, lost, asJSON)
		}
		if err != nil {
			return err
		}
	}
	othersRun, _ := cmd.Flags().GetBool("others-run")
	running := r.Answering(cmd.Context())
	if apply {
		if len(running) > 0 && !othersRun {
			return fmt.Errorf("somebody listens at %s, where another node of the cluster was: stop all nodes, the lost ones for good, and use --others-run only if it is something else", terminal.Shown(strings.Join(running, ", ")))
		}
		if err := r.Apply(plan); err != nil {
			return err
		}
	}
	if asJSON {
		out := recovered{Plan: plan, Node: r.Identity(), RecoveredID: cluster.RecoveredID(plan), Applied: apply}
		if apply {
			out.Copies = r.Copies(plan)
		}
		return printJSON(cmd.OutOrStdout(), out)
	}
	if err := printPlan(cmd.OutOrStdout(), r, plan, apply, begun); err != nil || apply || len(running) == 0 {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "somebody listens at %s, where another node of the cluster was: all nodes must be stopped\n", terminal.Shown(strings.Join(running, ", ")))
	return nil
}

// nothingToDo says that the cluster goes on without those nodes already, as far as this one goes.
func nothingToDo(out io.Writer, r *cluster.Recovery, lost []string, asJSON bool) error {
	if asJSON {
		return printJSON(out, recovered{Node: r.Identity(), RecoveredID: r.ClusterID(), Applied: true})
	}
	fmt.Fprintf(out, "nothing to do: the node is in cluster %s, which was recovered without %s\n", terminal.Shown(r.ClusterID()), terminal.Shown(strings.Join(lost, ", ")))
	return nil
}

// makePlan decides by what this node has and by the surveys of the others.
func makePlan(cmd *cobra.Command, r *cluster.Recovery, lost []string) (*lostquorum.Plan, error) {
	own, err := r.Survey()
	if err != nil {
		return nil, err
	}
	surveys := []*lostquorum.Survey{own}
	files, _ := cmd.Flags().GetStringSlice("survey")
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s, err := lostquorum.ReadSurvey(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case s.Identity != own.Identity:
			surveys = append(surveys, s)
		case s.ClusterID == own.ClusterID && !s.Same(own): // else it was recovered meanwhile
			return nil, fmt.Errorf("%s is of this node, which has been started since: survey it again, and bring the new file to all others", name)
		}
	}
	return lostquorum.Decide(surveys, lost)
}

func printPlan(out io.Writer, r *cluster.Recovery, p *lostquorum.Plan, applied, begun bool) error {
	fmt.Fprintf(out, "cluster    %s\n", terminal.Shown(p.ClusterID))
	fmt.Fprintf(out, "recovered  %s\n", terminal.Shown(cluster.RecoveredID(p)))
	fmt.Fprintf(out, "survivors  %s\n", terminal.Shown(strings.Join(p.Survivors, ", ")))
	fmt.Fprintf(out, "lost       %s\n\n", terminal.Shown(strings.Join(p.Lost, ", ")))
	count := map[lostquorum.Fate]int{}
	rows := [][]string{{"GROUP", "GOES ON WITH", "MEMBERS", "LAST ENTRY", "TERM", "WRITTEN", "MAY BE MISSING"}}
	for _, g := range p.Groups {
		count[g.Fate]++
		if g.Fate != lostquorum.Recovered {
			continue
		}
		missing := "what came behind it"
		if g.Records() {
			missing = fmt.Sprintf("offsets from %d on", g.MissingFrom)
		}
		rows = append(rows, []string{g.String(), nodeOf(g.Member), membersOf(g), fmt.Sprint(g.Index), fmt.Sprint(g.Term), utcTime(g.At), missing})
	}
	if len(rows) > 1 {
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	for _, g := range p.Groups {
		if g.Fate == lostquorum.Gone {
			fmt.Fprintf(out, "%s is gone: no survivor has anything of it%s\n", terminal.Shown(g.String()), wasAt(g))
		}
		for _, identity := range slices.Sorted(maps.Keys(g.Unusable)) {
			fmt.Fprintf(out, "%s: node %s cannot go on with what it has: %s\n", terminal.Shown(g.String()), terminal.Shown(nodeOf(identity)), terminal.Shown(g.Unusable[identity]))
		}
	}
	printWhatIsGone(out, p)
	fmt.Fprintf(out, "\n%d groups go on with the survivors, %d have a majority and are left as they are, %d are gone\n",
		count[lostquorum.Recovered], count[lostquorum.Kept], count[lostquorum.Gone])
	switch {
	case applied:
		fmt.Fprintf(out, "done at node %s; what was changed is as it was before in %s\n", terminal.Shown(nodeOf(r.Identity())), r.Copies(p))
		others := slices.DeleteFunc(slices.Clone(p.Survivors), func(identity string) bool { return identity == r.Identity() })
		if len(others) > 0 {
			fmt.Fprintf(out, "do the same at all survivors before any of them is started: %s\n", terminal.Shown(strings.Join(others, ", ")))
		}
	case begun:
		fmt.Fprintln(out, "this recovery was begun here and did not come to its end: --apply finishes it")
	default:
		fmt.Fprintln(out, "nothing was changed: --apply does it")
	}
	return nil
}

// wasAt says which nodes had a group that is gone.
func wasAt(g lostquorum.Group) string {
	if len(g.Held) == 0 {
		return ""
	}
	var names []string
	for _, id := range g.Held {
		names = append(names, string(id))
	}
	return terminal.Shown(", it was at " + strings.Join(names, ","))
}

// printWhatIsGone says what can be done about groups that are gone.
func printWhatIsGone(out io.Writer, p *lostquorum.Plan) {
	var topics []string
	shards := false
	for _, g := range p.Groups {
		switch {
		case g.Fate != lostquorum.Gone || g.Topic == "":
		case !g.Records():
			shards = true
		case !slices.Contains(topics, g.Topic):
			topics = append(topics, g.Topic)
		}
	}
	if len(topics) > 0 {
		fmt.Fprintf(out, `
What is gone stays offline until its topic is deleted, also with the survivors started, and only
a backup brings it back. Read what is left of the other partitions first, then, for each of
%s:
  trimaran topic delete TOPIC
  trimaran backup restore --from URL --topic TOPIC --new-ids
`, terminal.Shown(strings.Join(topics, ", ")))
	}
	if shards {
		fmt.Fprint(out, `
A shard that is gone stays offline for ever: consumer groups and transactional ids whose names
lead there are answered by nobody. Give them other names, or restore the last backup into a new
cluster ('trimaran backup restore').
`)
	}
}

func nodeOf(identity string) string {
	node, _, _ := strings.Cut(identity, ".")
	return node
}

func membersOf(g lostquorum.Group) string {
	var names []string
	for _, s := range g.Servers {
		name := nodeOf(s.Identity)
		if !s.Votes {
			name += " (no vote)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}
