package transaction

import (
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/internal/locks"
)

// State is a shard's replicated state, where the one goroutine that applies commands meets those
// that answer from it. What happens to it is transactions.State's affair.
type State struct {
	// mu guards machine. Nothing is taken, waited for or written under it.
	mu      locks.RWMutex[State]
	machine *transactions.State
}

// NewState gives a State of no transactional ids.
func NewState() *State { return &State{machine: transactions.NewState()} }

// RestoreState gives the state that Snapshot was called on. Errors are those of
// transactions.RestoreState.
func RestoreState(data []byte) (*State, error) {
	machine, err := transactions.RestoreState(data)
	if err != nil {
		return nil, err
	}
	return &State{machine: machine}, nil
}

// Apply applies a command. Errors are those of transactions.ParseCommand; then nothing has changed.
func (s *State) Apply(command []byte) error {
	c, err := transactions.ParseCommand(command)
	if err == nil {
		s.Do(c)
	}
	return err
}

// Do applies a command that was read.
func (s *State) Do(c transactions.Command) {
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

// Empty reports whether it is the state of a shard that never had a transactional id: then there is
// no need to keep a snapshot of it.
func (s *State) Empty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Empty()
}
