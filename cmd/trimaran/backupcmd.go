package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

func newBackup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy the cluster to a store, and bring it back",
		Long: `Copy topics, their configurations, the offsets of groups, users and ACLs to a store,
and bring them back. A store is a folder, file:///path, or an S3-compatible one,
s3://bucket/prefix?endpoint=https://host:port&region=name, whose credentials are in
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or where AWS's tools have them. A place
has the backups of one cluster. What one backup has stored the next does not store again.`,
		Example: "  trimaran backup create --to file:///backups/one\n  trimaran backup list --from file:///backups/one",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBackupCreate(), newBackupList(), newBackupVerify(), newBackupRestore(), newBackupCompare(), newBackupPrune())
	return cmd
}

// backupPatience is how long a command asks again where nobody answers, unless told otherwise.
const backupPatience = time.Minute

func addBackupClusterFlags(cmd *cobra.Command) {
	addBrokerFlags(cmd)
	timeout := cmd.Flags().Lookup("timeout")
	timeout.Usage = "how long to ask again where no answer comes"
	timeout.DefValue = backupPatience.String()
	_ = timeout.Value.Set(timeout.DefValue)
	cmd.Flags().Int("parallel", 4, "partitions that are worked on at once; each takes some 50 MiB of memory")
}

func addFromFlags(cmd *cobra.Command) {
	cmd.Flags().String("from", "", "the store, as a `URL`")
	_ = cmd.MarkFlagRequired("from")
}

func addWhichFlags(cmd *cobra.Command) {
	cmd.Flags().String("backup", "", "the `id` of the backup (default: the newest)")
	cmd.Flags().String("before", "", "the newest backup that was begun before this `time` (RFC 3339)")
	cmd.MarkFlagsMutuallyExclusive("backup", "before")
}

func addOutputFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("json", false, "print JSON")
	addProgressFlag(cmd)
}

// repositoryOf opens the store that a flag names.
func repositoryOf(cmd *cobra.Command, flag string) (*backup.Repository, error) {
	url, _ := cmd.Flags().GetString(flag)
	store, err := backup.Open(url)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	return &backup.Repository{Store: store}, nil
}

// manifestOf reads the backup that the flags name.
func manifestOf(cmd *cobra.Command, r *backup.Repository) (*backup.Manifest, error) {
	if id, _ := cmd.Flags().GetString("backup"); id != "" {
		return r.Manifest(cmd.Context(), id)
	}
	var before time.Time
	if text, _ := cmd.Flags().GetString("before"); text != "" {
		var err error
		if before, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, usagef("--before %q: want a time as 2026-01-31T12:00:00Z", text)
		}
	}
	return r.Newest(cmd.Context(), before)
}

func clusterOfFlags(cmd *cobra.Command) (*backupCluster, error) {
	b, err := brokersOf(cmd)
	if err != nil {
		return nil, err
	}
	patience, _ := cmd.Flags().GetDuration("timeout")
	return clusterForBackup(b, patience)
}

// topicsOf reads --topic: patterns, or new names by old ones.
func topicsOf(cmd *cobra.Command) (patterns []string, rename map[string]string, err error) {
	given, _ := cmd.Flags().GetStringArray("topic")
	for _, text := range given {
		old, name, renamed := strings.Cut(text, "=")
		if !renamed {
			patterns = append(patterns, text)
			continue
		}
		if err := errors.Join(kafkaproto.CheckTopicName(old), kafkaproto.CheckTopicName(name)); err != nil {
			return nil, nil, usagef("--topic %q: want OLD=NEW: %w", text, err)
		}
		if rename == nil {
			rename = map[string]string{}
		}
		if _, twice := rename[old]; twice {
			return nil, nil, usagef("--topic %q: %s has a new name already", text, old)
		}
		rename[old] = name
	}
	if len(patterns) > 0 && rename != nil {
		return nil, nil, usagef("--topic: either patterns, or OLD=NEW")
	}
	return patterns, rename, nil
}

// watch shows progress while work runs, where somebody looks.
func watch(cmd *cobra.Command, p *backup.Progress, work func() error) error {
	out := progressOf(cmd)
	if out == nil {
		return work()
	}
	done, shown := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(shown)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		began := time.Now()
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(out, "\r%-70s", progressText(p.Bytes.Load(), p.Total.Load(), time.Since(began)))
			case <-done:
				fmt.Fprintf(out, "\r%70s\r", "")
				return
			}
		}
	}()
	err := work()
	close(done)
	<-shown
	return err
}

// progressText says how far something is: bytes, rate, and what remains, where that is known.
func progressText(bytes, total int64, took time.Duration) string {
	rate := int64(float64(bytes) / max(took.Seconds(), 0.001))
	text := showBytes(bytes)
	if total > 0 {
		text += " of " + showBytes(total)
	}
	text += ", " + showBytes(rate) + "/s"
	if left := total - bytes; left > 0 && rate > 0 {
		text += ", " + (time.Duration(left/rate) * time.Second).String() + " left"
	}
	return text
}

func newBackupCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create --to URL [--topic PATTERN]…",
		Short: "Make a backup",
		Long: `Copy what was committed when the command began. Offsets of groups are never ahead of
the records in the same backup. A transaction is in it entirely, in all topics that
are copied and in the offsets of groups, or it is aborted where the backup is
restored: for that, commits wait a moment. Where this cannot be had it says why, as
"backup list" does. Needs ALTER of the cluster, since passwords of users are part of
it, as keys they are derived to, READ of the topics and DESCRIBE of the groups.

--catalog-only reads no records: topics, configurations, offsets of groups, users and
ACLs are those of now, the records those of the last backup. It is restored with what
a tier has (restore --from-tier).`,
		Example: "  trimaran backup create --to file:///backups/one\n  trimaran backup create --to 's3://backups/one?endpoint=https://s3.example.org' --topic 'orders-*' --keep 30",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return backupCreate(cmd) },
	}
	addBackupClusterFlags(cmd)
	cmd.Flags().String("to", "", "the store, as a `URL`")
	_ = cmd.MarkFlagRequired("to")
	cmd.Flags().StringArray("topic", nil, "topics whose names fit a `pattern` with *, ? and […] (default: all); can be given several times")
	cmd.Flags().Int("keep", 0, "how many backups stay there, this one among them (default: all)")
	cmd.Flags().Bool("catalog-only", false, "all but the records, which are those of the last backup")
	cmd.MarkFlagsMutuallyExclusive("catalog-only", "topic")
	addOutputFlags(cmd)
	return cmd
}

// createdBackup is what `backup create --json` prints.
type createdBackup struct {
	ID       string         `json:"id"`
	Cluster  string         `json:"cluster"`
	Topics   int            `json:"topics"`
	Groups   int            `json:"groups"`
	Bytes    int64          `json:"bytes"`    // in the backup
	Uploaded int64          `json:"uploaded"` // of these new to the store
	Objects  int64          `json:"objects"`  // that were uploaded
	Whole    bool           `json:"whole"`    // see backup.Manifest
	Torn     string         `json:"torn,omitempty"`
	Skipped  []string       `json:"skipped,omitempty"`
	Pruned   *backup.Pruned `json:"pruned,omitempty"`
}

func backupCreate(cmd *cobra.Command) error {
	to, err := repositoryOf(cmd, "to")
	if err != nil {
		return err
	}
	keep, _ := cmd.Flags().GetInt("keep")
	if keep < 0 {
		return usagef("--keep %d: want at least 1", keep)
	}
	patterns, rename, err := topicsOf(cmd)
	if err != nil {
		return err
	}
	if rename != nil {
		return usagef("--topic: want patterns; a topic gets a new name where it is restored")
	}
	c, err := clusterOfFlags(cmd)
	if err != nil {
		return err
	}
	defer c.close()
	o := backup.Options{Patterns: patterns, Progress: &backup.Progress{}}
	o.Parallel, _ = cmd.Flags().GetInt("parallel")
	o.CatalogOnly, _ = cmd.Flags().GetBool("catalog-only")
	var made *backup.Created
	err = watch(cmd, o.Progress, func() (err error) {
		made, err = backup.Create(cmd.Context(), c, to, o)
		return err
	})
	if err != nil {
		return interrupted(err)
	}
	m := made.Manifest
	out := createdBackup{
		ID: m.ID, Cluster: m.ClusterID, Topics: len(m.Topics), Groups: len(m.Groups), Bytes: m.Bytes(),
		Uploaded: made.Uploaded, Objects: made.Objects, Whole: m.Whole, Torn: made.Torn, Skipped: made.Skipped,
	}
	var prunes error
	if keep > 0 {
		out.Pruned, prunes = backup.Prune(cmd.Context(), to, backup.PruneOptions{Keep: keep})
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return cmp.Or(printJSON(cmd.OutOrStdout(), out), prunes)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "Backup %s: %s, %s, %s, of which %s are new\n", out.ID,
		count(out.Topics, "topic"), count(out.Groups, "group"), showBytes(out.Bytes), showBytes(out.Uploaded))
	if out.Torn != "" {
		fmt.Fprintf(w, "  transactions may be torn in it: %s\n", terminal.Shown(out.Torn))
	}
	for _, topic := range out.Skipped {
		fmt.Fprintf(w, "  left out: %s, which was deleted meanwhile or is being restored\n", topic)
	}
	if out.Pruned != nil {
		fmt.Fprint(w, prunedText(out.Pruned, false))
	}
	return prunes
}

// interrupted says in words that somebody ended a command.
func interrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func newBackupList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list --from URL",
		Short:   "Show the backups in a store",
		Example: "  trimaran backup list --from file:///backups/one",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return backupList(cmd) },
	}
	addFromFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// listedBackup is a row of `backup list`.
type listedBackup struct {
	ID       string   `json:"id"`
	Cluster  string   `json:"cluster,omitempty"`
	Started  int64    `json:"started,omitempty"` // ms
	Topics   int      `json:"topics"`
	Patterns []string `json:"patterns,omitempty"`
	Groups   int      `json:"groups"`
	Bytes    int64    `json:"bytes"`
	Whole    bool     `json:"whole"` // see backup.Manifest
	Torn     string   `json:"torn,omitempty"`
	// CatalogOnly: its records are those of the backup before, its offsets of groups are newer.
	CatalogOnly bool   `json:"catalog_only,omitempty"`
	Error       string `json:"error,omitempty"` // why it cannot be read
}

func backupList(cmd *cobra.Command) error {
	r, err := repositoryOf(cmd, "from")
	if err != nil {
		return err
	}
	ids, err := r.IDs(cmd.Context())
	if err != nil {
		return interrupted(err)
	}
	all := []listedBackup{}
	unread := 0
	for _, id := range ids {
		row := listedBackup{ID: id}
		m, err := r.Manifest(cmd.Context(), id)
		if err != nil {
			row.Error = err.Error()
			unread++
		} else {
			row.Cluster, row.Started, row.Topics, row.Patterns, row.Groups, row.Bytes = m.ClusterID, m.Started, len(m.Topics), m.Patterns, len(m.Groups), m.Bytes()
			row.CatalogOnly = m.CatalogOnly
			row.Whole, row.Torn = m.Whole, m.Torn
		}
		all = append(all, row)
	}
	var wrong error
	if unread > 0 {
		wrong = fmt.Errorf("%d of %d backups cannot be read", unread, len(all))
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return cmp.Or(printJSON(cmd.OutOrStdout(), all), wrong)
	}
	if len(all) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "There are no backups in %s\n", r.Store)
		return nil
	}
	rows := [][]string{{"BACKUP", "BEGUN", "TOPICS", "GROUPS", "SIZE", "OF TOPICS", "TRANSACTIONS", "CLUSTER"}}
	for _, b := range all {
		if b.Error != "" {
			rows = append(rows, []string{b.ID, "UNREADABLE: " + terminal.Shown(b.Error), "", "", "", "", "", ""})
			continue
		}
		of := "all"
		if len(b.Patterns) > 0 {
			of = terminal.Shown(strings.Join(b.Patterns, " "))
		}
		if b.CatalogOnly {
			of = "all, without newer records"
		}
		transactions := "whole"
		switch {
		case b.CatalogOnly:
			transactions = "-"
		case b.Torn != "":
			transactions = "may be torn"
		case !b.Whole:
			// Of a program of before, or of a cluster that has such nodes.
			transactions = "not known"
		}
		rows = append(rows, []string{
			b.ID, time.UnixMilli(b.Started).UTC().Format(time.RFC3339), fmt.Sprint(b.Topics), fmt.Sprint(b.Groups), showBytes(b.Bytes), of, transactions, terminal.Shown(b.Cluster),
		})
	}
	return cmp.Or(printTable(cmd.OutOrStdout(), rows), wrong)
}

func newBackupVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify --from URL",
		Short: "Read a backup and compare it with its manifest",
		Long: `Read all objects of a backup, and compare their bytes with the SHA-256 in the manifest.
No cluster is needed. The exit code is 1 if something is missing or is another.

With --orphans list what no backup names instead, with its size: what backups that were
cut short have left, and is there until 'trimaran backup prune' deletes it. The exit code
is 1 if there is any that prune would delete, with the same --grace.`,
		Example: `  trimaran backup verify --from file:///backups/one
  trimaran backup verify --from file:///backups/one --all
  trimaran backup verify --from file:///backups/one --orphans`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return backupVerify(cmd) },
	}
	addFromFlags(cmd)
	addWhichFlags(cmd)
	cmd.Flags().Bool("all", false, "all backups that are there")
	cmd.Flags().Bool("orphans", false, "list the objects that no backup names, and read no records")
	addGraceFlag(cmd)
	cmd.Flags().Int("parallel", 4, "objects that are read at once")
	for _, flag := range []string{"backup", "before", "parallel"} {
		cmd.MarkFlagsMutuallyExclusive("orphans", flag)
	}
	cmd.MarkFlagsMutuallyExclusive("all", "orphans", "backup")
	cmd.MarkFlagsMutuallyExclusive("all", "before")
	addOutputFlags(cmd)
	return cmd
}

func backupVerify(cmd *cobra.Command) error {
	r, err := repositoryOf(cmd, "from")
	if err != nil {
		return err
	}
	if orphans, _ := cmd.Flags().GetBool("orphans"); orphans {
		return backupOrphans(cmd, r)
	}
	if cmd.Flags().Changed("grace") {
		return usagef("--grace says nothing without --orphans")
	}
	var ids []string
	if all, _ := cmd.Flags().GetBool("all"); all {
		if ids, err = r.IDs(cmd.Context()); err != nil {
			return interrupted(err)
		}
	}
	o := backup.Options{Progress: &backup.Progress{}}
	o.Parallel, _ = cmd.Flags().GetInt("parallel")
	var done []*backup.Verified
	read := backup.Known{}
	err = watch(cmd, o.Progress, func() error {
		if ids == nil {
			m, err := manifestOf(cmd, r)
			if err != nil {
				return err
			}
			v, err := backup.Verify(cmd.Context(), m, r, o, read)
			done = append(done, v)
			return err
		}
		for _, id := range slices.Backward(ids) {
			v := &backup.Verified{ID: id}
			m, err := r.Manifest(cmd.Context(), id)
			switch {
			case errors.Is(err, backup.ErrDamaged), errors.Is(err, backup.ErrNewer):
				v.Wrong = []string{err.Error()}
			case err != nil:
				return err
			default:
				if v, err = backup.Verify(cmd.Context(), m, r, o, read); err != nil {
					return err
				}
			}
			done = append(done, v)
		}
		return nil
	})
	if err != nil {
		return interrupted(err)
	}
	return showVerified(cmd, done, "is as its manifest says")
}

func addGraceFlag(cmd *cobra.Command) {
	cmd.Flags().Duration("grace", backup.DefaultGrace, "what no backup names stays for so long: one that is being made may need it")
}

// graceOf reads --grace as package backup has it.
func graceOf(cmd *cobra.Command) (time.Duration, error) {
	grace, _ := cmd.Flags().GetDuration("grace")
	if grace < 0 {
		return 0, usagef("--grace %s: want 0 or more", grace)
	}
	return max(grace, 1), nil // 1: as short as it can be
}

// listedOrphans is what `backup verify --orphans --json` prints.
type listedOrphans struct {
	Orphans []backup.Orphan `json:"orphans"`
	Bytes   int64           `json:"bytes"` // of all of them
	// Young is how many of them may belong to a backup that is being made.
	Young int `json:"young"`
}

func backupOrphans(cmd *cobra.Command, r *backup.Repository) error {
	grace, err := graceOf(cmd)
	if err != nil {
		return err
	}
	found := listedOrphans{}
	if found.Orphans, err = backup.Orphans(cmd.Context(), r, grace); err != nil {
		return interrupted(err)
	}
	for _, o := range found.Orphans {
		found.Bytes += o.Bytes
		if o.Young {
			found.Young++
		}
	}
	var wrong error
	if old := len(found.Orphans) - found.Young; old > 0 {
		wrong = fmt.Errorf("no backup names %s: 'trimaran backup prune' deletes what none names", count(old, "object"))
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return cmp.Or(printJSON(cmd.OutOrStdout(), found), wrong)
	}
	if len(found.Orphans) > 0 {
		rows := [][]string{{"OBJECT", "SIZE", "STORED", "PRUNE"}}
		for _, o := range found.Orphans {
			prune := "deletes it"
			if o.Young {
				prune = "keeps it, too young"
			}
			rows = append(rows, []string{terminal.Shown(o.Key), showBytes(o.Bytes), o.Stored.UTC().Format(time.RFC3339), prune})
		}
		if err := printTable(cmd.OutOrStdout(), rows); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s, that no backup names\n", count(len(found.Orphans), "object"), showBytes(found.Bytes))
	return cmp.Or(err, wrong)
}

func showVerified(cmd *cobra.Command, all []*backup.Verified, good string) error {
	wrong := 0
	asJSON, _ := cmd.Flags().GetBool("json")
	for _, v := range all {
		wrong += len(v.Wrong)
		if asJSON {
			continue
		}
		verdict := good
		if len(v.Wrong) > 0 {
			verdict = strings.Replace(good, "is ", "is NOT ", 1)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Backup %s %s: %s, %s\n", v.ID, verdict, count(int(v.Objects), "object"), showBytes(v.Bytes))
		for _, text := range v.Wrong {
			fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", terminal.Shown(text))
		}
	}
	if asJSON {
		if all == nil {
			all = []*backup.Verified{}
		}
		if err := printJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%s wrong", count(wrong, "thing"))
	}
	return nil
}

func newBackupPrune() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune --from URL",
		Short: "Delete old backups, and what no backup names",
		Long: `Delete all backups but the newest ones, and then objects that no backup names any more,
or never did since a backup was cut short. What another backup names stays, and nothing
of what backups are made of is deleted while one of them cannot be read.`,
		Example: "  trimaran backup prune --from file:///backups/one --keep 30\n  trimaran backup prune --from file:///backups/one --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return backupPrune(cmd) },
	}
	addFromFlags(cmd)
	cmd.Flags().Int("keep", 0, "how many backups stay (default: all)")
	addGraceFlag(cmd)
	cmd.Flags().Bool("dry-run", false, "only say what would be deleted")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func backupPrune(cmd *cobra.Command) error {
	r, err := repositoryOf(cmd, "from")
	if err != nil {
		return err
	}
	var o backup.PruneOptions
	o.Keep, _ = cmd.Flags().GetInt("keep")
	o.DryRun, _ = cmd.Flags().GetBool("dry-run")
	if o.Keep < 0 {
		return usagef("--keep %d: want 0 or more", o.Keep)
	}
	if o.Grace, err = graceOf(cmd); err != nil {
		return err
	}
	pruned, err := backup.Prune(cmd.Context(), r, o)
	if err != nil {
		return interrupted(err)
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return printJSON(cmd.OutOrStdout(), pruned)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), prunedText(pruned, o.DryRun))
	return err
}

func prunedText(p *backup.Pruned, dry bool) string {
	verb := "Deleted"
	if dry {
		verb = "Would be deleted"
	}
	text := fmt.Sprintf("%s: %s, %s of %s that none names", verb, count(len(p.Backups), "backup"), count(len(p.Orphans), "object"), showBytes(p.OrphanBytes))
	if p.Young > 0 {
		text += fmt.Sprintf("; %s that none names yet may belong to one that is being made", count(p.Young, "object"))
	}
	return text + "\n"
}
