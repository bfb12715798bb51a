// Package fsm holds the replicated state machines, the catalog and the
// partition, and what they count and name: nodes, topics, offsets, terms. The
// state of consumer groups is its folder groups.
//
// You are here: the bottom of the node. Nothing in this package reads a clock,
// a random source, the environment, the disk or the network, and nothing logs:
// what is applied must be the same on every replica. Turning Raft's calls into
// calls of these machines is package cluster's job. Why a command was refused is
// said with an error of package outcome.
package fsm

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/trimaran-io/trimaran/outcome"
)

// Offset is a Kafka offset: the position of a record in its partition, from 0.
// It is not a Raft index: one Raft entry holds many records or none.
type Offset int64

// Index is the position of an entry in a Raft log, from 1.
type Index uint64

// Term is a Raft term (Raft paper, section 5.1).
type Term uint64

// LeaderEpoch is Kafka's name for the number of a leadership; here it is the Raft
// term of the partition's group, cut to the 32 bits that a record batch has for it.
type LeaderEpoch int32

// Epoch gives the leader epoch that batches proposed in term t carry.
func (t Term) Epoch() LeaderEpoch { return LeaderEpoch(int32(t & 0x7fffffff)) }

// RecoveryGap is how far the term in which a group goes on that has lost a majority of its members
// for good is above all that those who are left know of (trimaran recover). Leader epochs that are
// half as far apart are not of one history: what was read in the lower one may have been lost.
const RecoveryGap = 1 << 20

// NodeID is the name that a node keeps in its data directory and that an
// operator sees: 1 to 63 characters of a-z, 0-9 and '-'.
type NodeID string

// TopicID tells topics apart for ever, also two that had the same name.
type TopicID [16]byte

// String gives the 32 hexadecimal digits of the id; it is safe in file names.
func (id TopicID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id was never set.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// MarshalText and UnmarshalText make the id a JSON string and a JSON map key.
func (id TopicID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (id *TopicID) UnmarshalText(text []byte) error {
	if len(text) != 32 {
		return fmt.Errorf("topic id %q: want 32 hexadecimal digits", text)
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("topic id %q: %w", text, err)
	}
	return nil
}

// PartitionID names one partition and its Raft group. It is built on the topic's
// id, never on its name, so that a topic deleted and created again under the
// same name is another group (invariant 7 of the log).
type PartitionID struct {
	Topic     TopicID
	Partition int32
}

// String gives "<topic id>-<partition>", the name of the Raft group and of its folder.
func (p PartitionID) String() string {
	return p.Topic.String() + "-" + strconv.Itoa(int(p.Partition))
}

// ParsePartitionID is the reverse of PartitionID.String.
func ParsePartitionID(s string) (PartitionID, error) {
	topic, number, ok := strings.Cut(s, "-")
	if !ok {
		return PartitionID{}, fmt.Errorf("partition id %q: no '-'", s)
	}
	var id PartitionID
	if err := id.Topic.UnmarshalText([]byte(topic)); err != nil {
		return PartitionID{}, err
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return PartitionID{}, fmt.Errorf("partition id %q: bad partition number", s)
	}
	if id.Partition = int32(n); id.String() != s {
		// one group, one name
		return PartitionID{}, fmt.Errorf("partition id %q: written %q", s, id)
	}
	return id, nil
}

// Appended is what the producer of one record batch is told.
type Appended struct {
	BaseOffset Offset // offset of the batch's first record; -1: not appended
	LogStart   Offset // log start offset when the batch was applied
	// Timestamp is that of the batch's newest record, ms. A batch that was in the
	// log already is answered with what stands there.
	Timestamp int64
	// Err, if not 0, says why this batch alone was not appended: one of
	// ErrOutOfOrderSequence and ErrInvalidProducerEpoch.
	Err outcome.Error
}

// Slice is a piece of a partition's log as a reader gets it.
type Slice struct {
	// Batches holds whole record batches (magic 2) one after the other, the first
	// of which contains the offset asked for. Empty when there is nothing to read
	// there yet. The bytes may be shared: they must not be changed.
	Batches       []byte
	HighWatermark Offset // first offset not yet committed, as the replica that answered knows it
	LastStable    Offset // below it no transaction is open; at most HighWatermark
	LogStart      Offset // first offset that can be read
	// Aborted are the aborted transactions that have records among Batches or reach over them, in
	// the order of their first offsets; only where ReadCommitted was asked for. All of a slice
	// comes from one state of the partition.
	Aborted []AbortedTransaction
	// Done, where it is not nil, may be called once when nobody uses Batches any more: their memory
	// is used again then. Who does not call it leaves them to the garbage collector.
	Done func()
}
