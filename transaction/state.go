package transaction

import (
	"time"

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

// Open is how many transactions are ongoing or are decided and not everywhere over, and when the
// oldest of those that are ongoing began; the zero time if none is.
func (s *State) Open() (n int, oldest time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.machine.Open {
		n++
		if began := time.UnixMilli(p.Start); p.Phase == transactions.Ongoing && (oldest.IsZero() || began.Before(oldest)) {
			oldest = began
		}
	}
	return n, oldest
}

// Renew is transactions.State.Renew.
func (s *State) Renew(size int) [][]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Renew(size)
}

// size is about what the state takes in memory.
func (s *State) size() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Size()
}

func (s *State) revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Revision()
}

// lookUp gives what is replicated of an id and its revision; 0: it is not there.
func (s *State) lookUp(id string) (transactions.Producer, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.LookUp(id)
}

// missing gives what of a scope is not in the transaction, and how much of either kind is in it.
func (s *State) missing(id string, scope transactions.Scope) (transactions.Scope, int, int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Missing(id, scope)
}

// scope gives what the transaction of an id touches, sorted.
func (s *State) scope(id string) transactions.Scope {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.Scope(id)
}

// ids gives all ids, sorted.
func (s *State) ids() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.machine.IDs()
}

type opened struct {
	id       string
	producer transactions.Producer
}

// opened gives what is ongoing, or decided and not everywhere over, in no order, and how many ids
// there are.
func (s *State) opened() (open []opened, ids int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, p := range s.machine.Open {
		open = append(open, opened{id, p})
	}
	return open, s.machine.Len()
}
