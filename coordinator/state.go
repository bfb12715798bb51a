package coordinator

import (
	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// State is a shard's replicated state, where the one goroutine that applies commands meets those
// that answer from it. What happens to it is groups.State's affair.
type State struct {
	// mu guards machine. Nothing is taken, waited for or written under it.
	mu      locks.RWMutex[State]
	machine *groups.State
}

// NewState gives a State of no groups.
func NewState() *State { return &State{machine: groups.NewState()} }

// RestoreState gives the state that Snapshot was called on. Errors are those of
// groups.RestoreState.
func RestoreState(data []byte) (*State, error) {
	machine, err := groups.RestoreState(data)
	if err != nil {
		return nil, err
	}
	return &State{machine: machine}, nil
}

// Apply applies a command. Errors are those of groups.ParseCommand; then nothing has changed.
func (s *State) Apply(command []byte) error {
	c, err := groups.ParseCommand(command)
	if err == nil {
		s.Do(c)
	}
	return err
}

// Do applies a command that was read.
func (s *State) Do(c groups.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine.Do(c)
}

// Snapshot gives the whole state as bytes; the same state, the same bytes.
func (s *State) Snapshot() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Snapshot()
}

// size is about what the state takes in memory.
func (s *State) size() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Size()
}

// lookUp gives the group's replicated metadata, nil if it has none, and whether there is anything
// of the group. The metadata is never changed, only replaced.
func (s *State) lookUp(group string) (*groups.Group, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.LookUp(group)
}

// ids gives all groups, sorted.
func (s *State) ids() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.IDs()
}

// offset gives what is committed for a partition of that incarnation of the topic.
func (s *State) offset(group, topic string, id [16]byte, partition int32) (groups.Offset, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Offset(group, topic, id, partition)
}

// offsets gives all offsets of a group, sorted by topic and partition.
func (s *State) offsets(group string) []groups.Committed {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Offsets(group)
}

// pending reports whether a transaction has an offset pending for a partition of that incarnation
// of the topic.
func (s *State) pending(group, topic string, id [16]byte, partition int32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Pending(group, topic, id, partition)
}

// producer gives what the group knows of a transactional producer.
func (s *State) producer(group string, id int64) groups.Producer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Producer(group, id)
}

// lastMarkers is how many producers' last markers are remembered that have nothing pending.
func (s *State) lastMarkers() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.IdleLen()
}

// leastNeeded gives those of them, n at most, whose marker is older than that (ms), or that are
// more than most, the oldest first.
func (s *State) leastNeeded(before int64, most, n int) (producers []groups.IdleProducer) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	more := s.machine.IdleLen() - most
	for p := range s.machine.Idle {
		if len(producers) == n || p.At >= before && len(producers) >= more {
			break
		}
		producers = append(producers, p)
	}
	return producers
}
