package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
)

// A cluster that was recovered without a majority of some group goes on under another id: the one
// before, a dot, and eight digits that stand for what was decided. Nodes of different ids have
// nothing to do with each other, so that nodes that were lost and come back with what they had
// cannot speak in the name of groups that have gone on without them.

// Recovered gives the id that a cluster has after a recovery; decided is what its nodes decided by,
// the same for each of them.
func Recovered(clusterID string, decided []byte) string {
	sum := sha256.Sum256(decided)
	return fmt.Sprintf("%s.%x", clusterID, sum[:4])
}

// Formed gives the id that a cluster was formed with, which clients know it by.
func Formed(clusterID string) string {
	formed, _, _ := strings.Cut(clusterID, ".")
	return formed
}

// Succeeds reports whether a cluster is what became of another one by recoveries.
func Succeeds(clusterID, before string) bool {
	return before != "" && strings.HasPrefix(clusterID, before+".")
}

// ErrUnfinished is the answer to a start in a directory in which a recovery was begun.
var ErrUnfinished = errors.New("a recovery was begun and did not come to its end: run 'trimaran recover --apply' once more, or put back what it has copied")

// unfinished gives an error while a recovery is under way.
func (d *Dir) unfinished() error {
	if there, err := d.Noted(recoveryName); err != nil || !there {
		return err
	}
	return fmt.Errorf("data directory %s: %w", d.path, ErrUnfinished)
}

// Used reports whether a node has used the directory, which need not be there.
func Used(fsys vfs.FS, path string) (bool, error) {
	return vfs.Exists(fsys, (&Dir{path: path}).Join(fileName))
}

// Look gives node.json as it is. Nothing is made, and nothing else in the directory is looked at.
func (d *Dir) Look() (*File, error) { return d.parse() }

// Identity is the node's name in every Raft group.
func (f *File) Identity() string { return string(f.NodeID) + "." + f.Incarnation }

// maxRecovery bounds what is read of a recovery that is under way, in bytes.
const maxRecovery = 1 << 30

// Recovery gives what BeginRecovery noted; nil: none is under way.
func (d *Dir) Recovery() ([]byte, error) {
	b, err := vfs.ReadFile(d.fs, d.Join(recoveryName), maxRecovery)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// BeginRecovery notes what a recovery is about to do, on stable storage: from now on no node starts
// in the directory.
func (d *Dir) BeginRecovery(what []byte) error {
	return vfs.ReplaceFile(d.fs, d.Join(recoveryName), what)
}

// EndRecovery says that all of it is done, or that nothing is.
func (d *Dir) EndRecovery() error {
	if err := d.fs.Remove(d.Join(recoveryName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.fs.SyncDir(d.path)
}
