package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Member is what a node says about itself.
type Member struct {
	// Identity is the node's Raft identity: unique per data directory, never reused.
	Identity string
	// NodeID is the name the operator gave; two data directories may claim the same one.
	NodeID string
	// Incarnation is the part of Identity that tells data directories of one NodeID apart.
	Incarnation string
	// ClusterID is "" until the node belongs to a cluster.
	ClusterID string
	// PeerAddr is where the peer link listens, host:port.
	PeerAddr string
	// ClientAddr is where clients are served, host:port.
	ClientAddr string
	// Zone is the failure zone, "" for none.
	Zone string
	// Version is the version of the program.
	Version string
	// Expect is the number of nodes a new cluster is formed with; 0 says nothing.
	Expect int
	// Leaving: the node has said that it is about to stop (Leave sets it).
	Leaving bool

	// GossipAddr is where the member gossips, host:port. It is filled in by Members and not sent.
	GossipAddr string
}

// MaxMeta is how many bytes memberlist allows a node to say about itself.
const MaxMeta = 512

// ErrMetaTooLong: identity, addresses, zone and version together do not fit into MaxMeta.
var ErrMetaTooLong = errors.New("membership: what this node says about itself is too long")

var errMeta = errors.New("membership: malformed metadata")

// On the wire: a version byte, then uvarints: the process's start in milliseconds, Expect,
// flags (1: leaving); then the strings in the order of fields, each with its length (uvarint).
// Bytes behind what is known are ignored, so that a later version can add to the end.
const (
	metaVersion = 1
	flagLeaving = 1 << 0
)

// maxExpect bounds Expect against nonsense.
const maxExpect = 1 << 16

func (m *Member) strings() []*string {
	return []*string{&m.Identity, &m.NodeID, &m.Incarnation, &m.ClusterID, &m.PeerAddr, &m.ClientAddr, &m.Zone, &m.Version}
}

// encodeMeta gives what is sent for m; started tells the processes of one identity apart.
func encodeMeta(m Member, started int64) ([]byte, error) {
	if m.Identity == "" {
		return nil, errors.New("membership: a member needs an identity")
	}
	if m.Expect < 0 || m.Expect > maxExpect {
		return nil, fmt.Errorf("membership: cannot expect %d nodes", m.Expect)
	}
	b := []byte{metaVersion}
	b = binary.AppendUvarint(b, uint64(started))
	b = binary.AppendUvarint(b, uint64(m.Expect))
	var flags uint64
	if m.Leaving {
		flags |= flagLeaving
	}
	b = binary.AppendUvarint(b, flags)
	for _, s := range m.strings() {
		b = binary.AppendUvarint(b, uint64(len(*s)))
		b = append(b, *s...)
	}
	if len(b) > MaxMeta {
		return nil, fmt.Errorf("%w: %d bytes, at most %d; shorten node id, zone or addresses", ErrMetaTooLong, len(b), MaxMeta)
	}
	return b, nil
}

func decodeMeta(b []byte) (m Member, started int64, err error) {
	if len(b) < 1 || len(b) > MaxMeta || b[0] != metaVersion {
		return Member{}, 0, errMeta
	}
	b = b[1:]
	var numbers [3]uint64
	for i := range numbers {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return Member{}, 0, errMeta
		}
		numbers[i], b = v, b[n:]
	}
	if numbers[0] > 1<<62 || numbers[1] > maxExpect {
		return Member{}, 0, errMeta
	}
	m.Expect = int(numbers[1])
	m.Leaving = numbers[2]&flagLeaving != 0
	for _, s := range m.strings() {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > uint64(len(b)-n) {
			return Member{}, 0, errMeta
		}
		*s, b = string(b[n:n+int(v)]), b[n+int(v):]
	}
	if m.Identity == "" {
		return Member{}, 0, errMeta
	}
	return m, int64(numbers[0]), nil
}
