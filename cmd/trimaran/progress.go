package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cmd/internal/terminal"
)

func addProgressFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("progress", false, "show progress (default: when standard error is a terminal)")
}

// progressOf is where progress is shown; nil: nowhere.
func progressOf(cmd *cobra.Command) io.Writer {
	show := isTerminal(cmd.ErrOrStderr())
	if cmd.Flags().Changed("progress") {
		show, _ = cmd.Flags().GetBool("progress")
	}
	if !show {
		return nil
	}
	return raw(cmd.ErrOrStderr()) // it moves the cursor
}

// raw gives the writer to which nothing is escaped.
func raw(w io.Writer) io.Writer {
	if escaping, ok := w.(terminal.Writer); ok {
		return escaping.Raw
	}
	return w
}

func isTerminal(w io.Writer) bool {
	f, ok := raw(w).(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
