package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
)

// The data directory:
//
//	secret          random, so that a copy of the directory can be told from a stranger
//	LOCK            held by the process that uses it
//	node.json       who this node is (File)
//	votes           votes and terms of all groups; votes.db in a directory of the old format
//	members         gossip addresses of nodes met, one per line: a hint, not state
//	initial-topics  there when the topics of the configuration were created
//	catalog/        the log and the snapshot of the catalog's Raft group
//	partitions/     a folder per replica, named <topic id>-<partition>
//	journal/        what was written last to all partitions
//	recovery        there while a recovery is under way (recovered.go)
//	before-recovery-<digits>/  copies of what a recovery changed

const (
	lockName     = "LOCK"
	secretName   = "secret"
	fileName     = "node.json"
	votesName    = "votes"
	oldVotesName = "votes.db"
	catalogName  = "catalog"
	replicasName = "partitions"
	recoveryName = "recovery"
)

// Dir is a data directory that this process has locked.
type Dir struct {
	fs   vfs.FS
	path string
	lock io.Closer
}

// Open makes the directory if there is none, and locks it. A second process on it is refused.
func Open(fsys vfs.FS, path string) (*Dir, error) {
	if path == "" {
		return nil, errors.New("no data directory given")
	}
	if err := fsys.MkdirAll(path); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(path, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return &Dir{fs: fsys, path: path, lock: lock}, nil
}

// Close lets another process use the directory.
func (d *Dir) Close() error { return d.lock.Close() }

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// Join gives the path of something in the directory.
func (d *Dir) Join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// Noted reports whether Note was called for that name, now or by an earlier process.
func (d *Dir) Noted(name string) (bool, error) { return vfs.Exists(d.fs, d.Join(name)) }

// Note makes an empty file of that name; it is on stable storage on return. An error of a sync is
// a vfs.NotSynced.
func (d *Dir) Note(name string) error { return vfs.ReplaceFile(d.fs, d.Join(name), nil) }

// lostIdentity gives an error if something is here that belongs to a node that node.json should
// name.
func (d *Dir) lostIdentity() error {
	for _, name := range []string{votesName, oldVotesName, catalogName, replicasName} {
		there, err := vfs.Exists(d.fs, d.Join(name))
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("data directory %s has %s and no %s: it lost its identity; restore %s, or start with an empty directory and a new --node-id", d.path, name, fileName, fileName)
		}
	}
	return nil
}

// lostVotes gives an error if the votes of groups that are here are gone: the node would vote twice
// (invariant 7).
func (d *Dir) lostVotes(file *File) error {
	name, size := votesName, int64(0)
	if file.Old() {
		name = oldVotesName
	}
	switch votes, err := d.fs.Open(d.Join(name)); {
	case err == nil:
		size, err = votes.Size()
		votes.Close()
		if err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if size > 0 || file.ClusterID == "" && file.Forming == nil {
		return nil // or it never got so far: the file is made before a cluster is looked for
	}
	return fmt.Errorf("data directory %s has lost %s, what this node has voted: restore it, or start with an empty directory and a new --node-id", d.path, name)
}

// hostNodeID makes a node id of the host's name.
func hostNodeID() fsm.NodeID {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host), "-")
	if len(clean) > 63 {
		clean = strings.Trim(clean[:63], "-")
	}
	if clean == "" {
		clean = "node"
	}
	return fsm.NodeID(clean)
}
