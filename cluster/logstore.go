package cluster

import (
	"os"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// logOptions gives the settings of the node's store of partition logs.
func (n *Node) logOptions() raftlog.Options {
	opts := raftlog.Options{
		FS:     n.cfg.fs,
		Logger: n.logger,
		OnFail: n.diskFailed,
	}
	// For measuring what each costs: make bench.
	if os.Getenv("TRIMARAN_TEST_JOURNAL") == "off" {
		opts.JournalBytes = -1
	}
	if os.Getenv("TRIMARAN_TEST_SYNC") == "off" {
		opts.NoSync = true
		n.logger.Warn("TRIMARAN_TEST_SYNC=off: records are acknowledged that are not on stable storage")
	}
	return opts
}
