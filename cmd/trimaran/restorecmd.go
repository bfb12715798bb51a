package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func addRestoreFlags(cmd *cobra.Command) {
	addBackupClusterFlags(cmd)
	addFromFlags(cmd)
	addWhichFlags(cmd)
	cmd.Flags().StringArray("topic", nil, "topics whose names fit a `pattern`, or OLD=NEW for one under a new name (default: all); can be given several times")
	cmd.Flags().Bool("new-ids", false, "topics have other ids than they had")
	cmd.Flags().Bool("no-groups", false, "without offsets of groups")
	cmd.Flags().String("from-tier", "", "the `URL` of the store that the tier of the cluster is in (--tier-to), for records that the backup has not")
	addOutputFlags(cmd)
}

// gathered gives the backup that the flags name, with what --from-tier has; nil: that is not given.
func gathered(cmd *cobra.Command, r *backup.Repository, o backup.RestoreOptions) (*backup.Manifest, *backup.Gathered, error) {
	m, err := manifestOf(cmd, r)
	url, _ := cmd.Flags().GetString("from-tier")
	if err != nil || url == "" {
		return m, nil, err
	}
	t, err := newTierRemains(url)
	if err != nil {
		return nil, nil, usagef("--from-tier: %w", err)
	}
	g, err := backup.Gather(cmd.Context(), m, r, t, o)
	if err != nil {
		return nil, nil, err
	}
	return g.Manifest(), g, nil
}

func restoreOptionsOf(cmd *cobra.Command) (o backup.RestoreOptions, err error) {
	o.Progress = &backup.Progress{}
	o.Parallel, _ = cmd.Flags().GetInt("parallel")
	o.NewIDs, _ = cmd.Flags().GetBool("new-ids")
	o.NoGroups, _ = cmd.Flags().GetBool("no-groups")
	o.Patterns, o.Rename, err = topicsOf(cmd)
	return o, err
}

func newBackupRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore --from URL",
		Short: "Bring a backup into a cluster",
		Long: `Bring topics of a backup into a cluster that has none of that name: with their ids,
configurations, offsets, leader epochs and producers, with the offsets of groups, users
that are not there, and ACLs. Clients can append to a topic when all of that is over;
keep consumers away until then. Cut short, the same command goes on where it was.
--topic OLD=NEW restores a topic beside what is there, without groups, users and ACLs.

--from-tier takes records that the backup has not from the store that the cluster's old
records went to (--tier-to), for a cluster that is lost. They are copied: nothing is
changed there, and the new cluster needs a place of its own. Of each partition it is
said up to where it is there, and which offsets are missing.
Needs ALTER of the cluster, READ of the groups and READ and DESCRIBE of the topics.`,
		Example: `  trimaran backup restore --from file:///backups/one
  trimaran backup restore --from file:///backups/one --before 2026-01-31T12:00:00Z
  trimaran backup restore --from file:///backups/one --topic orders=orders-of-yesterday
  trimaran backup restore --from file:///backups/one --from-tier file:///mnt/tier`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return backupRestore(cmd) },
	}
	addRestoreFlags(cmd)
	cmd.Flags().Bool("no-security", false, "without users and ACLs")
	return cmd
}

// restoredBackup is what `backup restore --json` prints.
type restoredBackup struct {
	ID         string   `json:"id"`
	Topics     int      `json:"topics"`
	Partitions int      `json:"partitions"`
	Bytes      int64    `json:"bytes"`
	Done       []string `json:"done_before,omitempty"`
	Groups     int      `json:"groups"`
	Busy       []string `json:"busy_groups,omitempty"`
	Users      int      `json:"users"`
	ACLs       int      `json:"acls"`

	FromTier *backup.Gathered `json:"from_tier,omitempty"`
}

func backupRestore(cmd *cobra.Command) error {
	r, err := repositoryOf(cmd, "from")
	if err != nil {
		return err
	}
	o, err := restoreOptionsOf(cmd)
	if err != nil {
		return err
	}
	o.NoSecurity, _ = cmd.Flags().GetBool("no-security")
	c, err := clusterOfFlags(cmd)
	if err != nil {
		return err
	}
	defer c.close()
	m, tier, err := gathered(cmd, r, o)
	if err != nil {
		return interrupted(err)
	}
	if id, _ := cmd.Flags().GetString("backup"); id == "" && len(m.Patterns) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "Backup %s has only topics that fit %s; 'trimaran backup list' shows others\n", m.ID, terminal.Shown(strings.Join(m.Patterns, ", ")))
	}
	var done *backup.Restored
	err = watch(cmd, o.Progress, func() (err error) {
		done, err = backup.Restore(cmd.Context(), m, r, c, o)
		return err
	})
	if err != nil {
		return interrupted(err)
	}
	out := restoredBackup{
		ID: m.ID, Topics: done.Topics, Partitions: done.Partitions, Bytes: done.Bytes, Done: done.Done,
		Groups: done.Groups, Busy: done.Failed, Users: done.Users, ACLs: done.ACLs, FromTier: tier,
	}
	var busy error
	if len(out.Busy) > 0 {
		busy = fmt.Errorf("the offsets of %s are not set", count(len(out.Busy), "group"))
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return cmp.Or(printJSON(cmd.OutOrStdout(), out), busy)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "Backup %s is restored: %s, %s, %s, offsets of %s, %s, %s\n", m.ID, count(out.Topics, "topic"), count(out.Partitions, "partition"),
		showBytes(out.Bytes), count(out.Groups, "group"), count(out.Users, "user"), count(out.ACLs, "ACL"))
	for _, topic := range out.Done {
		fmt.Fprintf(w, "  restored before: %s\n", topic)
	}
	for _, group := range out.Busy {
		fmt.Fprintf(w, "  group %s\n", terminal.Shown(group))
	}
	if tier == nil {
		return busy
	}
	return cmp.Or(printReach(w, tier), busy)
}

// printReach says up to where partitions are there.
func printReach(w io.Writer, g *backup.Gathered) error {
	rows := [][]string{{"PARTITION", "OFFSETS", "FROM THE TIER", "MISSING"}}
	for _, r := range g.Reach {
		tier, missing := "-", fmt.Sprintf("from %d on, if there were any", r.End)
		if r.Tier >= 0 {
			tier = fmt.Sprintf("from %d on", r.Tier)
		}
		if r.Known > r.End {
			missing = fmt.Sprintf("from %d on; there were some to %d at least", r.End, r.Known-1)
		}
		rows = append(rows, []string{terminal.Shown(fmt.Sprintf("%s-%d", r.Topic, r.Partition)), fmt.Sprintf("%d to %d", r.Start, r.End-1), tier, missing})
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	for _, r := range g.Reach {
		if r.Unlisted {
			fmt.Fprintf(w, "%s: the tier has objects and no list of them; none was taken\n", terminal.Shown(fmt.Sprintf("%s-%d", r.Topic, r.Partition)))
		}
	}
	for _, text := range g.Back {
		fmt.Fprintf(w, "put back, since records are missing: %s\n", terminal.Shown(text))
	}
	return nil
}

func newBackupCompare() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare --from URL",
		Short: "Compare a cluster with a backup",
		Long: `Read the topics of a backup from the cluster, and compare them with the backup by
SHA-256 over all bytes of all batches, offsets, leader epochs and producers among them;
and the offsets of groups. Logs and groups may have gone on since. The exit code is 1
if something differs.`,
		Example: "  trimaran backup compare --from file:///backups/one",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return backupCompare(cmd) },
	}
	addRestoreFlags(cmd)
	return cmd
}

func backupCompare(cmd *cobra.Command) error {
	r, err := repositoryOf(cmd, "from")
	if err != nil {
		return err
	}
	o, err := restoreOptionsOf(cmd)
	if err != nil {
		return err
	}
	c, err := clusterOfFlags(cmd)
	if err != nil {
		return err
	}
	defer c.close()
	m, _, err := gathered(cmd, r, o)
	if err != nil {
		return interrupted(err)
	}
	o.Progress.Total.Store(m.Bytes())
	var v *backup.Verified
	err = watch(cmd, o.Progress, func() (err error) {
		v, err = backup.Compare(cmd.Context(), m, r, c, o)
		return err
	})
	if err != nil {
		return interrupted(err)
	}
	return showVerified(cmd, []*backup.Verified{v}, "is what the cluster has")
}
