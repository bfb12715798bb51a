package transactions

import (
	"encoding/binary"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/fields"
)

// A command is a list of records, so that commands can be joined to one:
//
//	version 1   1
//	number of records
//	each: kind 1, transactional id, then what belongs to it
//
// Times are ms since epoch, by the clock of the coordinator that decided.
const commandVersion = 1

const (
	kindSet = 1 // revision that must be there, revision then, Producer
	// revision that must be there; number of topics, each: id, number of partitions, those; number
	// of groups, those
	kindAdd   = 2
	kindGone  = 3 // revision that must be there
	kindLast  = kindGone
	leastItem = 3 // bytes that a record takes at least
)

// Phase is where a transactional id is in its life. The numbers are Kafka's (TransactionState), and
// stand in logs.
type Phase byte

const (
	Empty          Phase = 0 // no transaction since the producer id or epoch was given
	Ongoing        Phase = 1
	PrepareCommit  Phase = 2 // decided; markers are on their way
	PrepareAbort   Phase = 3
	CompleteCommit Phase = 4 // all markers have arrived
	CompleteAbort  Phase = 5
)

// String is the state's name in Kafka's protocol.
func (p Phase) String() string {
	if p > CompleteAbort {
		return "Unknown"
	}
	return [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort"}[p]
}

// Preparing reports whether markers are on their way.
func (p Phase) Preparing() bool { return p == PrepareCommit || p == PrepareAbort }

// Open reports whether there is something to be done still.
func (p Phase) Open() bool { return p == Ongoing || p.Preparing() }

// Producer is what is replicated of a transactional id besides what its transaction touches
// (Kafka's TransactionMetadata).
type Producer struct {
	ProducerID int64
	// Previous is the producer id before the last change, mostly the same; Next the one that is
	// given out once the transaction is over, since the epochs of ProducerID are used up; -1: none.
	Previous, Next int64
	// Epoch is the newest. LastEpoch was given out before it, and whoever still has it may not have
	// heard of the newest; -1: nobody may.
	Epoch, LastEpoch int16
	// Number counts the transactions of the producer id (fsm.Marker); 0: it had none.
	Number  int32
	Timeout int32 // ms
	Phase   Phase
	// Version is the version of the protocol that the transaction's client speaks, 0 or 2.
	Version byte
	Start   int64 // ms, of the transaction that is open or was the last; -1: none
	Updated int64 // ms
}

// Marker is what ends the transaction that is decided.
func (p Producer) Marker() fsm.Marker {
	return fsm.Marker{ProducerID: p.ProducerID, Epoch: p.Epoch, Number: p.Number, Commit: p.Phase == PrepareCommit}
}

// Scope is what a transaction touches.
type Scope struct {
	Partitions []fsm.PartitionID
	Groups     []string
}

// Changes collects records.
type Changes struct {
	b []byte
	n int
}

// Len is how many records there are.
func (c *Changes) Len() int { return c.n }

// Size is how many bytes they take in a command.
func (c *Changes) Size() int { return len(c.b) }

func (c *Changes) record(kind byte, id string, after uint64) {
	c.n++
	c.b = binary.AppendUvarint(fields.AppendString(append(c.b, kind), id), after)
}

// Set gives the id another Producer if its revision is after (0: it is not there), and then the
// revision that is named; else it is void. A Producer whose phase is not Open touches nothing any
// more.
func (c *Changes) Set(id string, after, revision uint64, p Producer) {
	c.record(kindSet, id, after)
	c.b = appendProducer(binary.AppendUvarint(c.b, revision), p)
}

// Add adds to what the transaction touches, if the revision is that one and the transaction is
// ongoing; else it is void.
func (c *Changes) Add(id string, revision uint64, s Scope) {
	c.record(kindAdd, id, revision)
	c.b = appendScope(c.b, s)
}

// Delete forgets the id if its revision is that one.
func (c *Changes) Delete(id string, revision uint64) { c.record(kindGone, id, revision) }

// Encode joins commands to one.
func Encode(commands ...Changes) []byte {
	n, size := 0, 0
	for _, c := range commands {
		n, size = n+c.n, size+len(c.b)
	}
	b := append(make([]byte, 0, size+1+binary.MaxVarintLen64), commandVersion)
	b = binary.AppendUvarint(b, uint64(n))
	for _, c := range commands {
		b = append(b, c.b...)
	}
	return b
}

func appendProducer(b []byte, p Producer) []byte {
	for _, v := range []int64{
		p.ProducerID, p.Previous, p.Next, int64(p.Epoch), int64(p.LastEpoch), int64(p.Number), int64(p.Timeout),
	} {
		b = binary.AppendVarint(b, v)
	}
	b = append(b, byte(p.Phase), p.Version)
	return binary.AppendVarint(binary.AppendVarint(b, p.Start), p.Updated)
}

func (r *reader) producer() Producer {
	p := Producer{
		ProducerID: r.Varint(), Previous: r.Varint(), Next: r.Varint(),
		Epoch: r.Int16(), LastEpoch: r.Int16(), Number: r.Int32(), Timeout: r.Int32(),
		Phase: Phase(r.Byte()), Version: r.Byte(), Start: r.Varint(), Updated: r.Varint(),
	}
	if r.Err == nil && p.Phase > CompleteAbort {
		r.FailWith(fields.Newer("phase %d", p.Phase))
	}
	return p
}

// appendScope writes partitions by topic. The same scope in another order gives the same bytes.
func appendScope(b []byte, s Scope) []byte {
	partitions, groups := Sorted(slices.Clone(s.Partitions)), slices.Sorted(slices.Values(s.Groups))
	topics := 0
	for i, p := range partitions {
		if i == 0 || p.Topic != partitions[i-1].Topic {
			topics++
		}
	}
	b = binary.AppendUvarint(b, uint64(topics))
	for i := 0; i < len(partitions); {
		topic, n := partitions[i].Topic, 1
		for i+n < len(partitions) && partitions[i+n].Topic == topic {
			n++
		}
		b = binary.AppendUvarint(append(b, topic[:]...), uint64(n))
		for _, p := range partitions[i : i+n] {
			b = binary.AppendVarint(b, int64(p.Partition))
		}
		i += n
	}
	b = binary.AppendUvarint(b, uint64(len(groups)))
	for _, g := range groups {
		b = fields.AppendString(b, g)
	}
	return b
}

func (r *reader) scope() (s Scope) {
	for range r.Count(len(fsm.TopicID{})+2, MaxPartitions) {
		topic := r.TopicID()
		n := r.Count(1, MaxPartitions-len(s.Partitions))
		if n == 0 {
			r.Fail("no partitions in a topic")
		}
		for range n {
			s.Partitions = append(s.Partitions, fsm.PartitionID{Topic: topic, Partition: r.Int32()})
		}
		if r.Err != nil {
			return Scope{}
		}
	}
	for range r.Count(2, MaxGroups) {
		s.Groups = append(s.Groups, r.name(MaxGroupID))
	}
	return s
}
