package transactions

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/fields"
)

// State is what a shard's replicas agree on: the same commands in the same order give the same
// Snapshot, byte for byte. It has no clock and no chance; times come in commands. It has no lock
// either: nobody may read while somebody applies.
type State struct {
	ids map[string]*stored
	// open are those of ids whose phase is Open.
	open     map[string]*stored
	revision uint64 // the highest that a command ever named
	bytes    int    // about what it takes in memory
}

// stored is what is kept of an id. partitions and groups are empty unless it is open.
type stored struct {
	revision   uint64
	producer   Producer
	partitions map[fsm.PartitionID]struct{}
	groups     map[string]struct{}
}

// What things cost in memory besides the bytes of their names: as the runtime rounds it up, with
// what maps keep free.
const (
	CostID        = 320
	CostPartition = 64
	CostGroup     = 64
)

// NewState gives a State of no transactional ids.
func NewState() *State {
	return &State{ids: make(map[string]*stored), open: make(map[string]*stored)}
}

// Command is a command that was read.
type Command struct{ changes []change }

// ParseCommand reads a command. The error wraps ErrMalformed, and fsm.ErrNewer if a newer program
// wrote it. What is allocated is within a small multiple of len(b).
func ParseCommand(b []byte) (Command, error) {
	changes, err := decodeCommand(b)
	return Command{changes}, err
}

// Do applies a command.
func (s *State) Do(c Command) {
	for i := range c.changes {
		c.changes[i].apply(s)
	}
}

// Apply applies a command, all of it or, if it is malformed, nothing.
func (s *State) Apply(command []byte) error {
	c, err := ParseCommand(command)
	if err == nil {
		s.Do(c)
	}
	return err
}

type change struct {
	kind            byte
	id              string
	after, revision uint64
	producer        Producer
	scope           Scope
}

func decodeCommand(b []byte) ([]change, error) {
	r := reader{fields.Reader{B: b}}
	if v := r.Byte(); r.Err == nil && v > commandVersion {
		return nil, fields.Newer("command of version %d, this program knows %d", v, commandVersion)
	} else if r.Err == nil && v != commandVersion {
		return nil, fields.Malformed("command of version %d, this program knows %d", v, commandVersion)
	}
	n := r.Count(leastItem, len(b))
	// Records are far larger in memory than the least they can be on the wire.
	changes := make([]change, 0, min(n, 64))
	for range n {
		c := change{kind: r.Byte(), id: r.name(MaxID), after: r.Uvarint()}
		switch c.kind {
		case kindSet:
			c.revision, c.producer = r.Uvarint(), r.producer()
			if r.Err == nil && c.revision == 0 {
				r.Fail("revision 0")
			}
		case kindAdd:
			c.scope = r.scope()
		case kindGone:
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
	t := s.ids[c.id]
	s.revision = max(s.revision, c.revision)
	if t == nil {
		if c.kind == kindSet && c.after == 0 {
			t = &stored{}
			s.ids[c.id] = t
			s.bytes += CostID + len(c.id)
			s.set(c.id, t, c.revision, c.producer)
		}
		return
	}
	if t.revision != c.after {
		return
	}
	switch c.kind {
	case kindSet:
		s.set(c.id, t, c.revision, c.producer)
	case kindAdd:
		if t.producer.Phase == Ongoing {
			s.add(t, c.scope)
		}
	case kindGone:
		s.clear(t)
		s.bytes -= CostID + len(c.id)
		delete(s.ids, c.id)
		delete(s.open, c.id)
	}
}

func (s *State) set(id string, t *stored, revision uint64, p Producer) {
	t.revision, t.producer = revision, p
	if p.Phase.Open() {
		s.open[id] = t
		return
	}
	delete(s.open, id)
	s.clear(t)
}

func (s *State) clear(t *stored) {
	s.bytes -= CostPartition * len(t.partitions)
	for g := range t.groups {
		s.bytes -= CostGroup + len(g)
	}
	t.partitions, t.groups = nil, nil
}

// add adds to the scope, as far as there is room: what is beyond was refused before.
func (s *State) add(t *stored, scope Scope) {
	for _, p := range scope.Partitions {
		if _, ok := t.partitions[p]; ok || len(t.partitions) >= MaxPartitions {
			continue
		}
		if t.partitions == nil {
			t.partitions = make(map[fsm.PartitionID]struct{})
		}
		t.partitions[p] = struct{}{}
		s.bytes += CostPartition
	}
	for _, g := range scope.Groups {
		if _, ok := t.groups[g]; ok || len(t.groups) >= MaxGroups {
			continue
		}
		if t.groups == nil {
			t.groups = make(map[string]struct{})
		}
		t.groups[g] = struct{}{}
		s.bytes += CostGroup + len(g)
	}
}

// The reading half.

// Size is about what the state takes in memory, in bytes.
func (s *State) Size() int { return s.bytes }

// Len is how many ids there are.
func (s *State) Len() int { return len(s.ids) }

// Empty reports whether no command ever changed it.
func (s *State) Empty() bool { return len(s.ids) == 0 && s.revision == 0 }

// Revision is the highest that a command ever named. A coordinator names higher ones.
func (s *State) Revision() uint64 { return s.revision }

// LookUp gives what is replicated of an id and its revision; 0: it is not there.
func (s *State) LookUp(id string) (Producer, uint64) {
	if t := s.ids[id]; t != nil {
		return t.producer, t.revision
	}
	return Producer{}, 0
}

// Missing gives what of a scope is not in the transaction, and how many partitions and groups are.
func (s *State) Missing(id string, scope Scope) (missing Scope, partitions, groups int) {
	t := s.ids[id]
	if t == nil {
		return scope, 0, 0
	}
	for _, p := range scope.Partitions {
		if _, ok := t.partitions[p]; !ok {
			missing.Partitions = append(missing.Partitions, p)
		}
	}
	for _, g := range scope.Groups {
		if _, ok := t.groups[g]; !ok {
			missing.Groups = append(missing.Groups, g)
		}
	}
	return missing, len(t.partitions), len(t.groups)
}

// Scope gives what the transaction of an id touches, sorted.
func (s *State) Scope(id string) Scope {
	t := s.ids[id]
	if t == nil {
		return Scope{}
	}
	return Scope{
		Partitions: Sorted(slices.Collect(maps.Keys(t.partitions))),
		Groups:     slices.Sorted(maps.Keys(t.groups)),
	}
}

// Sorted sorts partitions as Scope does, and gives them.
func Sorted(all []fsm.PartitionID) []fsm.PartitionID {
	slices.SortFunc(all, func(a, b fsm.PartitionID) int {
		return cmp.Or(bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

// IDs gives all ids, sorted.
func (s *State) IDs() []string { return slices.Sorted(maps.Keys(s.ids)) }

// Open gives the ids whose phase is Open, in no order.
func (s *State) Open(yield func(id string, p Producer) bool) {
	for id, t := range s.open {
		if !yield(id, t.producer) {
			return
		}
	}
}
