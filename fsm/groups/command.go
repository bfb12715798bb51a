package groups

import (
	"encoding/binary"
	"math"

	"github.com/trimaran-io/trimaran/fsm/fields"
)

// A command is a list of records, each of which stands alone like a record of
// Kafka's offsets topic, so that commands of a group can be joined to one:
//
//	version 1   1
//	number of records
//	each: kind 1, then what belongs to it
//
// Times are ms since epoch, by the clock of the coordinator that decided.
const commandVersion = 1

const (
	kindOffset       = 1 // group, topic, topic id, partition, Offset
	kindOffsetGone   = 2 // group, topic, partition, time of commit or -1: only if committed then
	kindGroup        = 3 // group, Group
	kindGroupGone    = 4 // group, its offsets with it
	kindGroupIfEmpty = 5 // group: gone if it has neither members nor offsets
	// Those of transactions; only a cluster of level fsm.LevelTransactions writes them.
	kindPending      = 6 // group, producer id, epoch, topic, topic id, partition, Offset
	kindEnded        = 7 // group, producer id, epoch, number, 0 or 1 for commit, time
	kindProducerGone = 8 // group, producer id, time of its last marker
	kindLast         = kindProducerGone
)

// Offset is a committed offset.
type Offset struct {
	Offset      int64
	LeaderEpoch int32 // -1: none
	Metadata    string
	CommittedAt int64 // ms
}

// Member is a member of a group as it is replicated.
type Member struct {
	ID           string
	InstanceID   *string
	ClientID     string
	ClientHost   string
	Rebalance    int32 // timeout, ms
	Session      int32 // timeout, ms; of a member that has left, 1
	Subscription []byte
	Assignment   []byte
}

// Group is a group's generation as it is replicated.
type Group struct {
	Generation   int32
	ProtocolType string
	Protocol     string
	Leader       string // "": none
	Since        int64  // ms: when it entered its state
	Members      []Member
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

func (c *Changes) record(kind byte, group string) {
	c.n++
	c.b = fields.AppendString(append(c.b, kind), group)
}

func (c *Changes) SetOffset(group, topic string, id [16]byte, partition int32, o Offset) {
	c.record(kindOffset, group)
	c.b = append(fields.AppendString(c.b, topic), id[:]...)
	c.b = appendOffset(binary.AppendVarint(c.b, int64(partition)), o)
}

// DeleteOffset deletes whatever is there if committedAt is -1, else only what was
// committed at that time.
func (c *Changes) DeleteOffset(group, topic string, partition int32, committedAt int64) {
	c.record(kindOffsetGone, group)
	c.b = binary.AppendVarint(fields.AppendString(c.b, topic), int64(partition))
	c.b = binary.AppendVarint(c.b, committedAt)
}

func (c *Changes) SetGroup(group string, g Group) {
	c.record(kindGroup, group)
	c.b = appendGroup(c.b, g)
}

func (c *Changes) DeleteGroup(group string)        { c.record(kindGroupGone, group) }
func (c *Changes) DeleteGroupIfEmpty(group string) { c.record(kindGroupIfEmpty, group) }

// SetPending commits an offset in a producer's transaction.
func (c *Changes) SetPending(group string, producerID int64, epoch int16, topic string, id [16]byte, partition int32, o Offset) {
	c.record(kindPending, group)
	c.b = binary.AppendVarint(binary.AppendVarint(c.b, producerID), int64(epoch))
	c.b = append(fields.AppendString(c.b, topic), id[:]...)
	c.b = appendOffset(binary.AppendVarint(c.b, int64(partition)), o)
}

// End ends a producer's transaction in the group at a time (ms), unless a marker with this number
// or a later one did.
func (c *Changes) End(group string, producerID int64, epoch int16, number int32, commit bool, at int64) {
	c.record(kindEnded, group)
	c.b = binary.AppendVarint(binary.AppendVarint(c.b, producerID), int64(epoch))
	c.b = fields.AppendBool(binary.AppendVarint(c.b, int64(number)), commit)
	c.b = binary.AppendVarint(c.b, at)
}

// ForgetProducer forgets the last marker of a producer that has nothing pending, if it is of that
// time (ms).
func (c *Changes) ForgetProducer(group string, producerID, at int64) {
	c.record(kindProducerGone, group)
	c.b = binary.AppendVarint(binary.AppendVarint(c.b, producerID), at)
}

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

func appendOffset(b []byte, o Offset) []byte {
	b = binary.AppendVarint(b, o.Offset)
	b = binary.AppendVarint(b, int64(o.LeaderEpoch))
	b = fields.AppendString(b, o.Metadata)
	return binary.AppendVarint(b, o.CommittedAt)
}

func (r *reader) offset() Offset {
	return Offset{Offset: r.Varint(), LeaderEpoch: r.Int32(), Metadata: r.String(MaxMetadata), CommittedAt: r.Varint()}
}

func appendGroup(b []byte, g Group) []byte {
	b = binary.AppendVarint(b, int64(g.Generation))
	b = fields.AppendString(b, g.ProtocolType)
	b = fields.AppendString(b, g.Protocol)
	b = fields.AppendString(b, g.Leader)
	b = binary.AppendVarint(b, g.Since)
	b = binary.AppendUvarint(b, uint64(len(g.Members)))
	for _, m := range g.Members {
		b = fields.AppendString(b, m.ID)
		b = appendOptional(b, m.InstanceID)
		b = fields.AppendString(b, m.ClientID)
		b = fields.AppendString(b, m.ClientHost)
		b = binary.AppendVarint(b, int64(m.Rebalance))
		b = binary.AppendVarint(b, int64(m.Session))
		b = fields.AppendBytes(b, m.Subscription)
		b = fields.AppendBytes(b, m.Assignment)
	}
	return b
}

// leastMember is what a member takes at least.
const leastMember = 8

func (r *reader) group() Group {
	g := Group{
		Generation:   r.Int32(),
		ProtocolType: r.String(MaxName),
		Protocol:     r.String(MaxName),
		Leader:       r.String(MaxMemberID),
		Since:        r.Varint(),
	}
	ids, instances := make(map[string]bool), make(map[string]bool)
	for range r.count(leastMember) {
		m := Member{
			ID:           r.String(MaxMemberID),
			InstanceID:   r.optional(MaxInstanceID),
			ClientID:     r.String(MaxName),
			ClientHost:   r.String(MaxName),
			Rebalance:    r.Int32(),
			Session:      r.Int32(),
			Subscription: r.Bytes(math.MaxInt32),
			Assignment:   r.Bytes(math.MaxInt32),
		}
		if r.Err != nil {
			return Group{}
		}
		if ids[m.ID] || m.InstanceID != nil && instances[*m.InstanceID] {
			r.Fail("a member twice")
		}
		ids[m.ID] = true
		if m.InstanceID != nil {
			instances[*m.InstanceID] = true
		}
		g.Members = append(g.Members, m)
	}
	if len(g.Members) > 0 && !ids[g.Leader] {
		r.Fail("the leader is no member")
	}
	return g
}
