package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
)

// The format of node.json is that of the whole directory: a program that knows less does not open
// it.
const (
	newFormat = 2 // all that Raft keeps is in files of package raftlog
	// votes and catalog are in bbolt files: votes.db, catalog/raft.db, catalog/snapshots/
	oldFormat = 1

	// maxFile bounds what is read of node.json, in bytes; a proposal of a thousand nodes has a
	// fraction.
	maxFile = 16 << 20
)

// File is node.json: who this node is. The incarnation is minted with the directory, so that a node
// that comes back empty under its old name is another member and cannot vote twice (invariant 7).
type File struct {
	Format      int        `json:"format"`
	NodeID      fsm.NodeID `json:"node_id"`
	Incarnation string     `json:"incarnation"`
	ClusterID   string     `json:"cluster_id,omitempty"`

	// Forming is the formation of the first cluster that this node proposed or agreed to. It agrees
	// to one only.
	Forming *Proposal `json:"forming,omitempty"`

	// Left says that the node was taken out of the cluster. It does not start again.
	Left bool `json:"left,omitempty"`

	// Lost are the identities of nodes that are gone for good, as an operator said who recovered
	// the cluster without them (recovered.go).
	Lost []string `json:"lost,omitempty"`

	// Checksum is that of all the rest; "" in files of before there was one.
	Checksum string `json:"checksum,omitempty"`
}

// Proposal is the proposal to form a cluster of exactly these nodes.
type Proposal struct {
	ClusterID string     `json:"cluster_id"`
	Proposer  string     `json:"proposer"` // identity
	Nodes     []fsm.Node `json:"nodes"`    // sorted by identity
}

// sum is the CRC-32C of all fields but the checksum.
func (f File) sum() string {
	f.Checksum = ""
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // it has nothing but numbers and texts
	}
	return fmt.Sprintf("%08x", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// Old says that the votes and the catalog are still in the files of an older program. What is in
// this program's own does not count then.
func (f *File) Old() bool { return f.Format == oldFormat }

// check says what is wrong with a file that was read; path is for the error.
func (f *File) check(path string) error {
	if f.Format != newFormat && f.Format != oldFormat {
		return fmt.Errorf("%s has format %d, this program knows %d and %d: it was written by another version", path, f.Format, oldFormat, newFormat)
	}
	if f.Checksum != "" && f.Checksum != f.sum() {
		return fmt.Errorf("%s is damaged: its checksum is %s and should be %s", path, f.Checksum, f.sum())
	}
	if err := fsm.CheckNodeID(f.NodeID); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	if raw, err := hex.DecodeString(f.Incarnation); err != nil || len(raw) != 4 {
		return fmt.Errorf("%s is damaged: incarnation %q", path, f.Incarnation)
	}
	return nil
}

// Save replaces node.json in one step; it is on stable storage on return. The checksum is set, and
// the format if there is none. An error of a sync is a vfs.NotSynced.
func (d *Dir) Save(file *File) error {
	if file.Format == 0 {
		file.Format = newFormat
	}
	file.Checksum = ""
	file.Checksum = file.sum()
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	return vfs.ReplaceFile(d.fs, d.Join(fileName), append(data, '\n'))
}

// Read gives node.json, or mints it for an empty directory. want is the node id that the operator
// gave, "" for whatever is there, or one made of the host's name.
func (d *Dir) Read(want fsm.NodeID) (*File, error) {
	if want != "" {
		if err := fsm.CheckNodeID(want); err != nil {
			return nil, err
		}
	}
	if err := d.unfinished(); err != nil {
		return nil, err
	}
	file, err := d.parse()
	if errors.Is(err, fs.ErrNotExist) {
		return d.mint(want)
	}
	if err != nil {
		return nil, err
	}
	if want != "" && want != file.NodeID {
		return nil, fmt.Errorf("data directory %s belongs to node %q, not to %q: give the right --data or --node-id", d.path, file.NodeID, want)
	}
	return file, d.lostVotes(file)
}

// parse reads node.json. The error wraps fs.ErrNotExist if there is none.
func (d *Dir) parse() (*File, error) {
	path := d.Join(fileName)
	data, err := vfs.ReadFile(d.fs, path, maxFile)
	if err != nil {
		return nil, err
	}
	file := new(File)
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(file); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return file, file.check(path)
}

// mint makes the first node.json of a directory, in which there must be nothing else.
func (d *Dir) mint(id fsm.NodeID) (*File, error) {
	if err := d.lostIdentity(); err != nil {
		return nil, err
	}
	if id == "" {
		id = hostNodeID()
	}
	var incarnation [4]byte
	rand.Read(incarnation[:])
	file := &File{NodeID: id, Incarnation: hex.EncodeToString(incarnation[:])}
	return file, d.Save(file)
}
