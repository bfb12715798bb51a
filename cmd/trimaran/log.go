package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
)

func newLog() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "log",
		Short:   "Look into the data directory of a stopped node",
		Example: "  trimaran log verify /var/lib/trimaran\n  trimaran log dump /var/lib/trimaran",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLogDump(), newLogVerify())
	return cmd
}

func newLogDump() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Print segments, entries and batches",
		Long: `Print what the logs in a stopped node's data directory hold: segments, the entries of
Raft in them, and their record batches. DIR is the data directory, or the folder of
one partition, or of the catalog, in it. Nothing is changed.`,
		Example: `  trimaran log dump /var/lib/trimaran
  trimaran log dump /var/lib/trimaran/partitions/<topic id>-0 --records
  trimaran log dump /var/lib/trimaran --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return logDump(cmd, args[0]) },
	}
	cmd.Flags().Bool("records", false, "also print offset, time and lengths of each record")
	cmd.Flags().Bool("segments", false, "print segments only")
	cmd.Flags().Bool("votes", false, "print what the node has voted in each Raft group, and nothing else")
	cmd.Flags().Bool("json", false, "print JSON, a line for each partition and each entry")
	return cmd
}

func logDump(cmd *cobra.Command, dir string) (err error) {
	d, err := cluster.OpenLogDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.JournalErr(); err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "the journal cannot be read, and is left out:", err)
	}
	names, _, err := d.Partitions()
	if err != nil {
		return err
	}
	if votes, _ := cmd.Flags().GetBool("votes"); votes {
		return dumpVotes(cmd, d)
	}
	records, _ := cmd.Flags().GetBool("records")
	brief, _ := cmd.Flags().GetBool("segments")
	asJSON, _ := cmd.Flags().GetBool("json")
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	defer func() {
		if ferr := out.Flush(); err == nil {
			err = ferr
		}
	}()
	lines := json.NewEncoder(out)
	failed := 0
	for _, name := range names {
		l, err := d.Describe(name)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", name, err)
			failed++
			continue
		}
		if asJSON {
			if err := lines.Encode(l); err != nil {
				return err
			}
		} else {
			what := "partition " + name
			if name == "catalog" {
				what = name
			}
			fmt.Fprintf(out, "%s  generation %d, begins with entry %d\n", what, l.Generation, l.First)
			if s := l.Snapshot; s != nil {
				fmt.Fprintf(out, "  snapshot  entry %d, term %d, next offset %d, %d bytes of state\n", s.Index, s.Term, s.NextOffset, s.StateBytes)
			}
		}
		for _, s := range l.Segments {
			if !asJSON {
				fmt.Fprintf(out, "  segment %s  %d bytes, offset %s, entries %d to %s, newest record %s, index %s\n",
					s.File, s.Bytes, orUnknown(s.Start), s.Base, orOpen(s.Last), utcTime(s.MaxTime), s.Index)
			}
			if brief {
				continue
			}
			err := d.Entries(name, s.Base, records, entryDumper(cmd, out, asJSON, name, s.File))
			if err != nil {
				out.Flush()
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: %v\n", name, s.File, err)
				failed++
				if cmd.Context().Err() != nil {
					return errors.New("interrupted")
				}
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d parts could not be read; 'trimaran log verify' tells more", failed)
	}
	return nil
}

// entryDumper gives what prints the entries of a segment, until the command is interrupted.
func entryDumper(cmd *cobra.Command, out io.Writer, asJSON bool, name, segment string) func(cluster.DumpedEntry) error {
	lines := json.NewEncoder(out)
	return func(e cluster.DumpedEntry) error {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		if asJSON {
			return lines.Encode(struct {
				Partition string `json:"partition"`
				Segment   string `json:"segment"`
				cluster.DumpedEntry
			}{name, segment, e})
		}
		return printEntry(out, e)
	}
}

// dumpVotes prints a line for each group.
func dumpVotes(cmd *cobra.Command, d *cluster.LogDir) error {
	all, err := d.Votes()
	if err != nil {
		return err
	}
	asJSON, _ := cmd.Flags().GetBool("json")
	for _, v := range all {
		switch {
		case asJSON:
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(v); err != nil {
				return err
			}
		case v.Damaged != "":
			fmt.Fprintf(cmd.OutOrStdout(), "%s  DAMAGED  %s\n", v.Group, v.Damaged)
		case v.Candidate == "":
			fmt.Fprintf(cmd.OutOrStdout(), "%s  term %d, no vote\n", v.Group, v.Term)
		default:
			fmt.Fprintf(cmd.OutOrStdout(), "%s  term %d, voted for %s in term %d\n", v.Group, v.Term, v.Candidate, v.VoteTerm)
		}
	}
	return nil
}

func printEntry(out io.Writer, e cluster.DumpedEntry) error {
	_, err := fmt.Fprintf(out, "    entry %d  term %d, at %d, %s of %d bytes, appended %s", e.Index, e.Term, e.Pos, e.Kind, e.Bytes, utcTime(e.At))
	if e.Kind == "log start" {
		fmt.Fprintf(out, ", to offset %d", e.Start)
	}
	if e.Error != "" {
		fmt.Fprintf(out, "  ERROR %s", e.Error)
	}
	fmt.Fprintln(out)
	for _, b := range e.Batches {
		fmt.Fprintf(out, "      batch %d to %d  %d records, %d bytes, epoch %d, %s, time %s to %s",
			b.BaseOffset, b.LastOffset, b.Records, b.Bytes, b.LeaderEpoch, b.Codec, utcTime(b.BaseTimestamp), utcTime(b.MaxTimestamp))
		if b.ProducerID >= 0 {
			fmt.Fprintf(out, ", producer %d epoch %d sequence %d", b.ProducerID, b.ProducerEpoch, b.BaseSequence)
		}
		if b.Error != "" {
			fmt.Fprintf(out, "  ERROR %s", b.Error)
		}
		fmt.Fprintln(out)
		for _, r := range b.List {
			fmt.Fprintf(out, "        record %d  time %s, key %s, value %s\n", r.Offset, utcTime(r.Timestamp), orNull(r.Key), orNull(r.Value))
		}
	}
	return err
}

func orUnknown(offset int64) string {
	if offset < 0 {
		return "not known"
	}
	return fmt.Sprint(offset)
}

func orOpen(index uint64) string {
	if index == 0 {
		return "its end"
	}
	return fmt.Sprint(index)
}

func orNull(size int) string {
	if size < 0 {
		return "null"
	}
	return fmt.Sprintf("%d bytes", size)
}

// utcTime shows a time in ms since 1970, in UTC as the numbers are.
func utcTime(ms int64) string {
	if ms <= 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func newLogVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check every byte of a stopped node's logs",
		Long: `Check the logs in a stopped node's data directory: manifests, that segments follow one
another, CRCs and chain of all entries, offsets, indexes, and the CRC of every record
batch; the catalog's log, and the votes. DIR is the data directory, or the folder of one
partition, or of the catalog, in it. Nothing is changed. The exit code is 1 if anything is wrong.`,
		Example: "  trimaran log verify /var/lib/trimaran\n  trimaran log verify /var/lib/trimaran --json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return logVerify(cmd, args[0]) },
	}
	cmd.Flags().Bool("json", false, "print JSON, a line for each partition")
	addProgressFlag(cmd)
	return cmd
}

func logVerify(cmd *cobra.Command, dir string) error {
	d, err := cluster.OpenLogDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, total, err := d.Partitions()
	if err != nil {
		return err
	}
	shown := progressOf(cmd)
	var done int64
	last := time.Now()
	progress := func(bytes int64) {
		done += bytes
		if shown != nil && time.Since(last) > 200*time.Millisecond {
			last = time.Now()
			fmt.Fprintf(shown, "\r%s of %s (%d%%)  ", showBytes(done), showBytes(total), min(100*done/max(total, 1), 100))
		}
	}
	clearLine := func() {
		if shown != nil {
			fmt.Fprintf(shown, "\r%40s\r", "")
		}
	}
	out := cmd.OutOrStdout()
	asJSON, _ := cmd.Flags().GetBool("json")
	wrong := 0
	if err := d.JournalErr(); err != nil {
		wrong++
		fmt.Fprintf(cmd.ErrOrStderr(), "WRONG  %v\n", err)
	}
	for _, err := range d.VerifyOwn() {
		wrong++
		fmt.Fprintf(cmd.ErrOrStderr(), "WRONG  %v\n", err)
	}
	for _, name := range names {
		if cmd.Context().Err() != nil {
			return errors.New("interrupted")
		}
		found, bad := d.Verify(name, progress)
		wrong += len(bad)
		clearLine()
		if asJSON {
			texts := []string{}
			for _, err := range bad {
				texts = append(texts, err.Error())
			}
			err := json.NewEncoder(out).Encode(struct {
				Partition string   `json:"partition"`
				Found     any      `json:"found"`
				Wrong     []string `json:"wrong"`
			}{name, found, texts})
			if err != nil {
				return err
			}
			continue
		}
		state := "good "
		if len(bad) > 0 {
			state = "WRONG"
		}
		fmt.Fprintf(out, "%s  %s  %d segments, entries %d to %d, offsets %s to %s, %s\n", state, name,
			found.Segments, found.First, found.Last, orUnknown(found.Start), orUnknown(found.Next), showBytes(found.Bytes))
		if found.Torn > 0 {
			fmt.Fprintf(out, "       %d bytes of an append that was never acknowledged are at the end; the next start cuts them off\n", found.Torn)
		}
		for _, err := range bad {
			fmt.Fprintf(out, "       %v\n", err)
		}
	}
	clearLine()
	if wrong > 0 {
		return fmt.Errorf("%d things are wrong in %d partitions looked at", wrong, len(names))
	}
	if !asJSON {
		fmt.Fprintf(out, "%d partitions, %s: nothing is wrong\n", len(names), showBytes(done))
	}
	return nil
}
