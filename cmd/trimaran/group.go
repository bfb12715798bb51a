package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func newGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "group",
		Short:   "Look at consumer groups, set their offsets, delete them",
		Example: "  trimaran group list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGroupList(), newGroupDescribe(), newGroupResetOffsets(), newGroupDelete())
	return cmd
}

// withGroups runs f with an admin client and the time that --timeout allows.
func withGroups(cmd *cobra.Command, f func(ctx context.Context, b *brokers, adm *kadm.Client) error) error {
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
	// From here on the client knows the cluster's one broker and need not try the others.
	if _, err := cl.Request(ctx, kmsg.NewPtrMetadataRequest()); err != nil {
		return err
	}
	if err := f(ctx, b, kadm.NewClient(cl)); errors.Is(err, context.DeadlineExceeded) {
		return b.unreachable(err)
	} else if err != nil {
		return err
	}
	return nil
}

func newGroupList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Show all consumer groups",
		Example: "  trimaran group list\n  trimaran group list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withGroups(cmd, func(ctx context.Context, _ *brokers, adm *kadm.Client) error {
				groups, err := adm.ListGroups(ctx)
				if err != nil {
					return err
				}
				type listed struct {
					Group string `json:"group"`
					State string `json:"state"`
					Type  string `json:"protocol_type"`
					// See exact.
					GroupBase64 string `json:"group_base64,omitempty"`
					TypeBase64  string `json:"protocol_type_base64,omitempty"`
				}
				all := []listed{}
				for _, g := range groups.Sorted() {
					all = append(all, listed{g.Group, g.State, g.ProtocolType, exact(g.Group), exact(g.ProtocolType)})
				}
				if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
					return printJSON(cmd.OutOrStdout(), all)
				}
				rows := [][]string{{"GROUP", "STATE", "PROTOCOL TYPE"}}
				for _, g := range all {
					rows = append(rows, []string{g.Group, orDash(g.State), orDash(g.Type)})
				}
				return printTable(cmd.OutOrStdout(), rows)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// describedGroup is what `group describe` knows of a group.
type describedGroup struct {
	Group    string            `json:"group"`
	State    string            `json:"state"`
	Protocol string            `json:"protocol,omitempty"` // the assignor
	Members  []describedMember `json:"members"`
	Offsets  []describedOffset `json:"offsets"`
	Lag      int64             `json:"lag"` // of all partitions together

	// See exact.
	GroupBase64    string `json:"group_base64,omitempty"`
	ProtocolBase64 string `json:"protocol_base64,omitempty"`
}

// exact gives the bytes of a text that JSON cannot say, since they are no UTF-8, in base64; "" if
// it can. JSON then has U+FFFD in their place in the text itself.
func exact(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

type describedMember struct {
	ID         string             `json:"id"`
	Instance   string             `json:"instance,omitempty"` // group.instance.id
	Client     string             `json:"client"`
	Host       string             `json:"host"`
	Partitions map[string][]int32 `json:"partitions"`

	// See exact.
	IDBase64       string `json:"id_base64,omitempty"`
	InstanceBase64 string `json:"instance_base64,omitempty"`
	ClientBase64   string `json:"client_base64,omitempty"`
}

type describedOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // -1: nothing is
	Start     int64  `json:"log_start"`
	End       int64  `json:"log_end"`
	Lag       int64  `json:"lag"`    // -1: not known
	Member    string `json:"member"` // who it is assigned to

	MemberBase64 string `json:"member_base64,omitempty"` // see exact
}

func newGroupDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "describe GROUP",
		Short:   "Show a group's members, what they are assigned, offsets and lag",
		Example: "  trimaran group describe readers\n  trimaran group describe readers --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withGroups(cmd, func(ctx context.Context, _ *brokers, adm *kadm.Client) error {
				g, err := describeGroup(ctx, adm, args[0])
				if err != nil {
					return err
				}
				if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
					return printJSON(cmd.OutOrStdout(), g)
				}
				return g.print(cmd)
			})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func describeGroup(ctx context.Context, adm *kadm.Client, name string) (*describedGroup, error) {
	lags, err := adm.Lag(ctx, name)
	if err != nil {
		return nil, err
	}
	l, ok := lags[name]
	if !ok {
		return nil, fmt.Errorf("group %s: no answer about it", name)
	}
	if err := l.Error(); errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("group %s: there is none of that name; 'trimaran group list' shows all", name)
	} else if err != nil {
		return nil, fmt.Errorf("group %s: %w", name, err)
	}
	g := &describedGroup{Group: name, State: l.State, Protocol: l.Protocol, GroupBase64: exact(name), ProtocolBase64: exact(l.Protocol), Members: []describedMember{}, Offsets: []describedOffset{}}
	for _, m := range l.Members {
		d := describedMember{ID: m.MemberID, Client: m.ClientID, Host: strings.TrimPrefix(m.ClientHost, "/"), Partitions: map[string][]int32{},
			IDBase64: exact(m.MemberID), ClientBase64: exact(m.ClientID)}
		if m.InstanceID != nil {
			d.Instance, d.InstanceBase64 = *m.InstanceID, exact(*m.InstanceID)
		}
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				d.Partitions[t.Topic] = slices.Sorted(slices.Values(t.Partitions))
			}
		}
		g.Members = append(g.Members, d)
	}
	slices.SortFunc(g.Members, func(a, b describedMember) int { return strings.Compare(a.ID, b.ID) })
	for _, p := range l.Lag.Sorted() {
		o := describedOffset{Topic: p.Topic, Partition: p.Partition, Committed: p.Commit.At, Start: p.Start.Offset, End: p.End.Offset, Lag: p.Lag}
		if p.Member != nil {
			o.Member, o.MemberBase64 = p.Member.MemberID, exact(p.Member.MemberID)
		}
		if p.Err != nil {
			o.Lag = -1
		}
		g.Lag += max(o.Lag, 0)
		g.Offsets = append(g.Offsets, o)
	}
	if g.State == "Dead" && len(g.Offsets) == 0 {
		return nil, fmt.Errorf("group %s: there is none of that name; 'trimaran group list' shows all", name)
	}
	return g, nil
}

func (g *describedGroup) print(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Group %s: %s, %d members, lag %d", terminal.Shown(g.Group), terminal.Shown(g.State), len(g.Members), g.Lag)
	if g.Protocol != "" {
		fmt.Fprintf(out, ", assigned by %s", terminal.Shown(g.Protocol))
	}
	fmt.Fprintln(out)
	if len(g.Offsets) > 0 {
		fmt.Fprintln(out)
		rows := [][]string{{"TOPIC", "PARTITION", "COMMITTED", "LOG START", "LOG END", "LAG", "MEMBER"}}
		for _, o := range g.Offsets {
			rows = append(rows, []string{o.Topic, fmt.Sprint(o.Partition), offsetText(o.Committed), fmt.Sprint(o.Start), fmt.Sprint(o.End), offsetText(o.Lag), orDash(o.Member)})
		}
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	if len(g.Members) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	rows := [][]string{{"MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"}}
	for _, m := range g.Members {
		count := 0
		for _, p := range m.Partitions {
			count += len(p)
		}
		rows = append(rows, []string{m.ID, orDash(m.Instance), orDash(m.Client), orDash(m.Host), fmt.Sprint(count)})
	}
	return printTable(out, rows)
}

func offsetText(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func newGroupDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete GROUP…",
		Short:   "Delete groups that have no members, with their offsets",
		Example: "  trimaran group delete readers",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withGroups(cmd, func(ctx context.Context, _ *brokers, adm *kadm.Client) error {
				answers, err := adm.DeleteGroups(ctx, args...)
				if err != nil {
					return err
				}
				var failed []error
				for _, a := range answers.Sorted() {
					if a.Err != nil {
						failed = append(failed, fmt.Errorf("group %s: %w", a.Group, a.Err))
					}
				}
				return errors.Join(failed...)
			})
		},
	}
	addBrokerFlags(cmd)
	return cmd
}
