package cluster

import "github.com/trimaran-io/trimaran/cluster/raftlog/vfs"

// notSynced is an error of a sync. It ends the node: see Node.lost.
type notSynced = vfs.NotSynced

// syncDir brings a folder to stable storage.
func syncDir(disk vfs.FS, dir string) error {
	if err := disk.SyncDir(dir); err != nil {
		return notSynced{Err: err}
	}
	return nil
}
