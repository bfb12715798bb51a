package groups

import (
	"fmt"
	"maps"
	"slices"

	"github.com/trimaran-io/trimaran/fsm/fields"
)

// State is what a shard's replicas agree on: the same commands in the same order
// give the same Snapshot, byte for byte. It has no clock and no chance; times come
// in commands. It has no lock either: nobody may read while somebody applies.
type State struct {
	groups  map[string]*stored
	pending map[string]*transactional // by group
	idle    idle
	bytes   int // about what it takes in memory
}

// stored is what is kept of a group. A group that has neither meta nor topics is
// not kept.
type stored struct {
	meta   *Group // nil: a simple group, whose consumers only commit. Never changed, only replaced.
	topics map[string]*topicOffsets
}

// topicOffsets are those of one topic, never empty. They belong to one incarnation
// of it: with the first commit for another id, all that was there is gone.
type topicOffsets struct {
	id         [16]byte
	partitions map[int32]Offset
}

// About what things cost in memory besides their bytes.
const (
	costGroup  = 256
	costTopic  = 192
	costOffset = 96
	CostMember = 256
)

// NewState gives a State of no groups.
func NewState() *State {
	return &State{groups: make(map[string]*stored), pending: make(map[string]*transactional)}
}

// Apply applies a command. The error wraps ErrMalformed and means that this is none;
// then nothing has changed. With fsm.ErrNewer the replica must end.
func (s *State) Apply(command []byte) error {
	c, err := ParseCommand(command)
	if err == nil {
		s.Do(c)
	}
	return err
}

// Command is a command that can be applied.
type Command struct{ changes []change }

// ParseCommand reads a command; errors are those of Apply.
func ParseCommand(command []byte) (Command, error) {
	changes, err := decodeCommand(command)
	return Command{changes}, err
}

// Do applies a command that was read.
func (s *State) Do(c Command) {
	for _, change := range c.changes {
		change.apply(s)
	}
}

// change is a record of a command.
type change struct {
	kind      byte
	group     string
	topic     string
	id        [16]byte
	partition int32
	offset    Offset
	at        int64
	meta      Group
	producer  int64
	epoch     int16
	last      Ended
	commit    bool
}

// leastRecord is what a record takes at least.
const leastRecord = 2

func decodeCommand(b []byte) ([]change, error) {
	r := reader{fields.Reader{B: b}}
	if v := r.Byte(); r.Err == nil && v > commandVersion {
		return nil, fields.Newer("command of version %d, this program knows %d", v, commandVersion)
	} else if r.Err == nil && v != commandVersion {
		return nil, fields.Malformed("command of version %d, this program knows %d", v, commandVersion)
	}
	n := r.count(leastRecord)
	// Records are far larger in memory than the least they can be on the wire.
	changes := make([]change, 0, min(n, 64))
	for range n {
		c := change{kind: r.Byte(), group: r.String(MaxGroupID)}
		switch c.kind {
		case kindOffset:
			c.topic, c.id, c.partition, c.offset = r.String(MaxTopic), r.TopicID(), r.Int32(), r.offset()
		case kindOffsetGone:
			c.topic, c.partition, c.at = r.String(MaxTopic), r.Int32(), r.Varint()
		case kindGroup:
			c.meta = r.group()
		case kindGroupGone, kindGroupIfEmpty:
		case kindPending:
			c.producer, c.epoch = r.producerID(), r.epoch()
			c.topic, c.id, c.partition, c.offset = r.String(MaxTopic), r.TopicID(), r.Int32(), r.offset()
		case kindEnded:
			c.producer, c.epoch = r.producerID(), r.epoch()
			c.last, c.commit, c.at = Ended{true, r.Int32()}, r.Bool(), r.Varint()
		case kindProducerGone:
			c.producer, c.at = r.producerID(), r.Varint()
		default:
			if r.Err == nil && c.kind > kindLast {
				r.FailWith(fields.Newer("record of kind %d", c.kind))
			}
			r.Fail("record of kind %d", c.kind)
		}
		if r.Err != nil {
			break
		}
		changes = append(changes, c)
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return changes, nil
}

func (c *change) apply(s *State) {
	switch c.kind {
	case kindOffset:
		s.overtake(c.group, c.topic, c.id, c.partition)
		s.setOffset(c.group, c.topic, c.id, c.partition, c.offset)
	case kindOffsetGone:
		if c.at == -1 {
			s.deletePending(c.group, &c.topic, c.partition)
		}
		s.deleteOffset(c.group, c.topic, c.partition, c.at)
	case kindGroup:
		s.setGroup(c.group, c.meta)
	case kindGroupGone:
		s.deletePending(c.group, nil, 0)
		s.deleteGroup(c.group)
	case kindGroupIfEmpty:
		if g := s.groups[c.group]; g != nil && len(g.topics) == 0 && (g.meta == nil || len(g.meta.Members) == 0) && !s.hasOpen(c.group) {
			s.deleteGroup(c.group)
		}
	case kindPending:
		s.setPending(c.group, c.producer, c.epoch, c.topic, c.id, c.partition, pendingOffset{Offset: c.offset})
	case kindEnded:
		s.end(c.group, c.producer, c.epoch, c.last, c.commit, c.at)
	case kindProducerGone:
		s.forgetProducer(c.group, c.producer, c.at)
	}
}

func (s *State) group(id string) *stored {
	g := s.groups[id]
	if g == nil {
		g = &stored{topics: make(map[string]*topicOffsets)}
		s.groups[id] = g
		s.bytes += costGroup + len(id)
	}
	return g
}

func (s *State) setOffset(group, topic string, id [16]byte, partition int32, o Offset) {
	g := s.group(group)
	t := g.topics[topic]
	if t != nil && t.id != id {
		s.deleteTopic(g, topic)
		t = nil
	}
	if t == nil {
		t = &topicOffsets{id: id, partitions: make(map[int32]Offset)}
		g.topics[topic] = t
		s.bytes += costTopic + len(topic)
	}
	if old, ok := t.partitions[partition]; ok {
		s.bytes -= costOffset + len(old.Metadata)
	}
	t.partitions[partition] = o
	s.bytes += costOffset + len(o.Metadata)
}

func (s *State) deleteOffset(group, topic string, partition int32, committedAt int64) {
	g := s.groups[group]
	if g == nil || g.topics[topic] == nil {
		return
	}
	t := g.topics[topic]
	o, ok := t.partitions[partition]
	if !ok || committedAt != -1 && o.CommittedAt != committedAt {
		return
	}
	delete(t.partitions, partition)
	s.bytes -= costOffset + len(o.Metadata)
	if len(t.partitions) == 0 {
		s.deleteTopic(g, topic)
	}
	// A simple group is its offsets (in Kafka, a sweep later).
	if len(g.topics) == 0 && g.meta == nil {
		s.deleteGroup(group)
	}
}

func (s *State) deleteTopic(g *stored, topic string) {
	for _, o := range g.topics[topic].partitions {
		s.bytes -= costOffset + len(o.Metadata)
	}
	delete(g.topics, topic)
	s.bytes -= costTopic + len(topic)
}

func (s *State) setGroup(id string, meta Group) {
	g := s.group(id)
	s.bytes += meta.cost() - g.meta.cost()
	g.meta = &meta
}

func (s *State) deleteGroup(id string) {
	g := s.groups[id]
	if g == nil {
		return
	}
	for topic := range g.topics {
		s.deleteTopic(g, topic)
	}
	s.bytes -= costGroup + len(id) + g.meta.cost()
	delete(s.groups, id)
}

func (g *Group) cost() int {
	if g == nil {
		return 0
	}
	n := len(g.ProtocolType) + len(g.Protocol) + len(g.Leader)
	for _, m := range g.Members {
		n += CostMember + len(m.ID) + len(m.ClientID) + len(m.ClientHost) + len(m.Subscription) + len(m.Assignment)
		if m.InstanceID != nil {
			n += len(*m.InstanceID)
		}
	}
	return n
}

// The reading half.

// Size is about what the state takes in memory.
func (s *State) Size() int {
	return s.bytes
}

// LookUp gives the group's replicated metadata, nil if it has none, and whether
// there is anything of the group, be it pending.
func (s *State) LookUp(group string) (*Group, bool) {
	g := s.groups[group]
	if g == nil {
		return nil, s.hasOpen(group)
	}
	return g.meta, true
}

// IDs gives all groups, sorted.
func (s *State) IDs() []string {
	ids := slices.Collect(maps.Keys(s.groups))
	for id, t := range s.pending {
		if len(t.open) > 0 && s.groups[id] == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Offset gives what is committed for a partition of that incarnation of the topic.
func (s *State) Offset(group, topic string, id [16]byte, partition int32) (Offset, bool) {
	if g := s.groups[group]; g != nil {
		if t := g.topics[topic]; t != nil && t.id == id {
			o, ok := t.partitions[partition]
			return o, ok
		}
	}
	return Offset{}, false
}

// Committed is an offset with where it is.
type Committed struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
	Offset
}

// Offsets gives all offsets of a group, sorted by topic and partition.
func (s *State) Offsets(group string) []Committed {
	g := s.groups[group]
	if g == nil {
		return nil
	}
	var all []Committed
	for _, topic := range slices.Sorted(maps.Keys(g.topics)) {
		t := g.topics[topic]
		for _, partition := range slices.Sorted(maps.Keys(t.partitions)) {
			all = append(all, Committed{Topic: topic, TopicID: t.id, Partition: partition, Offset: t.partitions[partition]})
		}
	}
	return all
}
