// Package transactions is the replicated state of transactional ids.
package transactions

// State is what a shard's replicas agree on.
type State struct{}

// Command is a command that was read.
type Command struct{}

// NewState gives a State of no transactional ids.
func NewState() *State { return &State{} }

// ParseCommand reads a command.
func ParseCommand([]byte) (Command, error) { return Command{}, nil }

// Do applies a command.
func (s *State) Do(Command) {}

// Snapshot gives the whole state as bytes.
func (s *State) Snapshot() []byte { return nil }

// RestoreState gives the state that Snapshot was called on.
func RestoreState([]byte) (*State, error) { return NewState(), nil }

// Empty reports whether it is the state of a shard that never had a transactional id.
func (s *State) Empty() bool { return true }
