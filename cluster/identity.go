package cluster

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/bolt"
	"github.com/trimaran-io/trimaran/fsm"
)

// The data directory:
//
//	LOCK          held by the process that uses it
//	node.json     who this node is (identityFile)
//	votes         votes and terms of all groups
//	members       gossip addresses of nodes met, one per line: a hint, not state
//	catalog/      the catalog group's log and its snapshot
//	partitions/   a folder per replica, named <topic id>-<partition>

// The format of node.json is that of the whole directory: a program that knows less does not open it.
const (
	identityFormat = 2 // all that Raft keeps is in files of package raftlog
	boltFormat     = 1 // votes and catalog are in bbolt files: votes.db, catalog/raft.db, catalog/snapshots/
)

// identityFile is node.json: who this node is, for ever. The incarnation is
// minted with the directory, so that a node that comes back empty under its old
// name is another member and cannot vote twice (invariant 7).
type identityFile struct {
	Format      int        `json:"format"`
	NodeID      fsm.NodeID `json:"node_id"`
	Incarnation string     `json:"incarnation"`
	ClusterID   string     `json:"cluster_id,omitempty"`

	// Forming is the formation of the first cluster that this node proposed or
	// agreed to. It agrees to one only.
	Forming *formation `json:"forming,omitempty"`

	// Left says that the node was taken out of the cluster. It does not start again.
	Left bool `json:"left,omitempty"`

	// Checksum is that of all the rest; "" in files of before there was one.
	Checksum string `json:"checksum,omitempty"`
}

// sum is the CRC-32C of all fields but the checksum.
func (f identityFile) sum() string {
	f.Checksum = ""
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // it has nothing but numbers and texts
	}
	return fmt.Sprintf("%08x", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// formation is the proposal to form a cluster of exactly these nodes.
type formation struct {
	ClusterID string     `json:"cluster_id"`
	Proposer  string     `json:"proposer"` // identity
	Nodes     []fsm.Node `json:"nodes"`    // sorted by identity
}

// dataDir is a locked data directory.
type dataDir struct {
	path string
	lock *os.File
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

// openDataDir creates and locks the directory. A second process on it is refused.
func openDataDir(path string) (*dataDir, error) {
	if path == "" {
		return nil, errors.New("no data directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s is in use by another process: %w", path, err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

func (d *dataDir) close() error { return d.lock.Close() }

// loadIdentity reads node.json, or mints it for an empty directory. want is the
// node id that the operator gave, "" for whatever is there.
func (d *dataDir) loadIdentity(want fsm.NodeID) (*identityFile, error) {
	if want != "" {
		if err := fsm.CheckNodeID(want); err != nil {
			return nil, err
		}
	}
	path := d.join("node.json")
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		file := new(identityFile)
		decoder := json.NewDecoder(bytes.NewReader(data))
		if err := decoder.Decode(file); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", path, err)
		}
		if file.Format != identityFormat && file.Format != boltFormat {
			return nil, fmt.Errorf("%s has format %d, this program knows %d and %d: it was written by another version", path, file.Format, boltFormat, identityFormat)
		}
		if file.Checksum != "" && file.Checksum != file.sum() {
			return nil, fmt.Errorf("%s is damaged: its checksum is %s and should be %s", path, file.Checksum, file.sum())
		}
		if err := fsm.CheckNodeID(file.NodeID); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", path, err)
		}
		if raw, err := hex.DecodeString(file.Incarnation); err != nil || len(raw) != 4 {
			return nil, fmt.Errorf("%s is damaged: incarnation %q", path, file.Incarnation)
		}
		if want != "" && want != file.NodeID {
			return nil, fmt.Errorf("data directory %s belongs to node %q, not to %q: give the right --data or --node-id", d.path, file.NodeID, want)
		}
		return file, d.hasVotes(file)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	// Without node.json there must be nothing else, or the identity was lost.
	for _, name := range []string{"votes", bolt.VotesFile, "catalog", "partitions"} {
		if _, err := os.Stat(d.join(name)); err == nil {
			return nil, fmt.Errorf("data directory %s has %s and no node.json: it lost its identity; restore node.json, or start with an empty directory and a new --node-id", d.path, name)
		}
	}
	if want == "" {
		want = hostNodeID()
	}
	var incarnation [4]byte
	rand.Read(incarnation[:])
	file := &identityFile{Format: identityFormat, NodeID: want, Incarnation: hex.EncodeToString(incarnation[:])}
	return file, d.saveIdentity(file)
}

// hasVotes gives an error if the votes of groups that are here are gone: the node would vote twice (invariant 7).
func (d *dataDir) hasVotes(file *identityFile) error {
	name := "votes"
	if file.Format == boltFormat {
		name = bolt.VotesFile
	}
	if info, err := os.Stat(d.join(name)); err == nil && info.Size() > 0 {
		return nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if file.ClusterID == "" && file.Forming == nil {
		return nil // it never got so far: the file is made before a cluster is looked for
	}
	return fmt.Errorf("data directory %s has lost %s, what this node has voted: restore it, or start with an empty directory and a new --node-id", d.path, name)
}

// saveIdentity replaces node.json in one step; it is on stable storage on return.
func (d *dataDir) saveIdentity(file *identityFile) error {
	file.Checksum = file.sum()
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	return writeFileSync(d.join("node.json"), append(data, '\n'))
}

func writeFileSync(path string, data []byte) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = syncFile(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// A data directory that was copied makes two nodes of one identity. Each of them acknowledges records and votes in
// the name of both, which no majority survives. The lock in the directory does not tell; gossip does.

// twinFor is for how long another process of this identity must be seen. One that was ended is taken for alive for some
// seconds, on a busy machine for some more; longer than that it is only if it answers.
const twinFor = time.Minute

// watchForTwin ends this node if another process of its identity was there before it.
func (n *Node) watchForTwin() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	limit := int(cmp.Or(n.cfg.twinFor, twinFor) / time.Second)
	// Turns and not time: what is seen after this process itself stood still is old.
	for seen := 0; ; {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		addr, younger := n.gossip.Twin()
		if addr == "" || !younger {
			seen = 0
			continue
		}
		if seen++; seen > limit {
			n.fail(fmt.Errorf("node %s runs already, and gossips at %s: data directory %s is a copy of its own; start with an empty one", n.identity, addr, n.dir.path))
			return
		}
	}
}

// newUUID gives 16 random bytes in the form of a version 4 UUID (RFC 9562).
func newUUID() (id [16]byte) {
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
