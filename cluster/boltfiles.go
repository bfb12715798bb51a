package cluster

import (
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/raftgroup"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// boltFiles opens the files of a group in raft-boltdb and Raft's own snapshot files. fail is told of an error of the disk.
func boltFiles(dir string, logger hclog.Logger, fail func(error)) raftgroup.OpenFiles {
	return func(fresh bool) (files raftgroup.Files, err error) {
		path := filepath.Join(dir, "raft.db")
		if _, statErr := os.Stat(path); !fresh && os.IsNotExist(statErr) {
			return files, raftlog.ErrLost
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return files, err
		}
		snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
		if err != nil {
			return files, err
		}
		files.Snapshots = raftlog.GuardSnapshots(snapshots, fail)
		log, err := raftlog.OpenBolt(path, files.Snapshots)
		if err != nil {
			return files, err
		}
		log.OnFail(fail)
		files.Log, files.Serving = log, log.Serving
		for _, d := range []string{filepath.Dir(dir), dir} {
			if err := syncDir(d); err != nil {
				files.Log.Close()
				return files, err
			}
		}
		return files, nil
	}
}
