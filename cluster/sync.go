package cluster

import (
	"os"
)

// notSynced is an error of a sync. It ends the node: see Node.lost.
type notSynced struct{ error }

func (e notSynced) Unwrap() error { return e.error }

// syncFile brings a file or a folder to stable storage.
func syncFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return notSynced{err}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncFile(f)
}
