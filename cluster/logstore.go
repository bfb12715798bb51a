package cluster

import (
	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// logOptions gives the settings of the node's store of partition logs.
func (n *Node) logOptions() raftlog.Options {
	opts := raftlog.Options{
		FS:     n.cfg.fs,
		Logger: n.logger,
		OnFail: n.diskFailed,
		Outbox: &n.outbox,
	}
	forMeasuring(&opts, n.logger)
	return opts
}
