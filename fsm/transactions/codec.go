package transactions

import "github.com/trimaran-io/trimaran/fsm/fields"

// ErrMalformed is in every error about a command that cannot be applied or a snapshot that cannot
// be restored.
var ErrMalformed = fields.ErrMalformed

// reader reads commands and snapshots.
type reader struct{ fields.Reader }

// name reads a string of 1 to max bytes.
func (r *reader) name(max int) string {
	s := r.String(max)
	if s == "" {
		r.Fail("an empty name")
	}
	return s
}
