package identity

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/outcome"
)

// Identity is who this node is: what never changes, and what it has come to be.
//
// Reading waits for nothing: what is read is what is on stable storage.
type Identity struct {
	dir         *Dir
	nodeID      fsm.NodeID
	incarnation string
	name        string
	secret      Secret

	file atomic.Pointer[File] // replaced, never changed

	// changing is held by who changes the file, while that is written and synced. Nothing else is
	// taken under it, and readers do not take it.
	changing locks.Slow[Identity]
}

// Load reads who the node is from its data directory, and mints it for an empty one. want is the
// node id that the operator gave, "" for whatever is there. The error says what an operator has to
// mend.
func Load(dir *Dir, want fsm.NodeID) (*Identity, error) {
	file, err := dir.Read(want)
	if err != nil {
		return nil, err
	}
	id := &Identity{
		dir: dir, nodeID: file.NodeID, incarnation: file.Incarnation,
		name: fsm.Node{ID: file.NodeID, Incarnation: file.Incarnation}.Identity(),
	}
	id.file.Store(file)
	if id.secret, err = dir.readSecret(); err != nil {
		return nil, err
	}
	return id, nil
}

// NodeID is the node's name.
func (id *Identity) NodeID() fsm.NodeID { return id.nodeID }

// Incarnation is eight random digits, minted with the data directory.
func (id *Identity) Incarnation() string { return id.incarnation }

// String is "<node id>.<incarnation>", the node's name in every Raft group.
func (id *Identity) String() string { return id.name }

// ClusterID is the cluster that the node belongs to, "" until it is in one. Nodes with another one
// are strangers; clients are told Formed of it.
func (id *Identity) ClusterID() string { return id.file.Load().ClusterID }

// Lost gives the identities of nodes that the cluster was recovered without. It must not be
// changed.
func (id *Identity) Lost() []string { return id.file.Load().Lost }

// Forming is the cluster that the node has proposed or agreed to form; nil: none. It must not be
// changed.
func (id *Identity) Forming() *Proposal { return id.file.Load().Forming }

// HasLeft says that the node was taken out of its cluster.
func (id *Identity) HasLeft() bool { return id.file.Load().Left }

// Grant agrees to form a cluster, unless the node has agreed to another one: it agrees once in its
// life. The agreement is on stable storage on return. Errors are outcome.ErrClusterMismatch, and
// those of the disk; that of a sync is a vfs.NotSynced.
func (id *Identity) Grant(p *Proposal) error {
	if !slices.ContainsFunc(p.Nodes, func(node fsm.Node) bool { return node.Identity() == id.name }) {
		return fmt.Errorf("%w: this node is not part of the proposal", outcome.ErrClusterMismatch)
	}
	id.changing.Lock()
	defer id.changing.Unlock()
	switch now := id.file.Load(); {
	case now.ClusterID == p.ClusterID:
		return nil
	case now.ClusterID != "":
		return fmt.Errorf("%w: this node is in cluster %s", outcome.ErrClusterMismatch, now.ClusterID)
	case now.Forming != nil && now.Forming.ClusterID == p.ClusterID:
		return nil
	case now.Forming != nil:
		return fmt.Errorf("%w: this node has agreed to form cluster %s with %s", outcome.ErrClusterMismatch, now.Forming.ClusterID, now.Forming.Proposer)
	}
	return id.changeLocked(func(f *File) { f.Forming = p })
}

// Adopt makes the node a member of the cluster, for ever; that is on stable storage on return. An
// error of a sync is a vfs.NotSynced.
func (id *Identity) Adopt(clusterID string) error {
	return id.change(func(f *File) { f.ClusterID = clusterID })
}

// Leave notes that the node was taken out of its cluster: it does not start again.
func (id *Identity) Leave() error { return id.change(func(f *File) { f.Left = true }) }

// OldFormat says that the votes and the catalog are still in the files of an older program.
func (id *Identity) OldFormat() bool { return id.file.Load().Old() }

// Migrated notes that what those files held is in this program's own: an older program does not
// open the directory any more.
func (id *Identity) Migrated() error { return id.change(func(f *File) { f.Format = newFormat }) }

func (id *Identity) change(how func(*File)) error {
	id.changing.Lock()
	defer id.changing.Unlock()
	return id.changeLocked(how)
}

// changeLocked changes node.json; changing is held.
func (id *Identity) changeLocked(how func(*File)) error {
	next := *id.file.Load()
	how(&next)
	if err := id.dir.Save(&next); err != nil {
		return err
	}
	id.file.Store(&next)
	return nil
}

// NewUUID gives 16 random bytes in the form of a version 4 UUID (RFC 9562).
func NewUUID() (id [16]byte) {
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
