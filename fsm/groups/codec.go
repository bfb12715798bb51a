package groups

import (
	"math"

	"github.com/trimaran-io/trimaran/fsm/fields"
)

// ErrMalformed is in every error about a command that cannot be applied or a
// snapshot that cannot be restored.
var ErrMalformed = fields.ErrMalformed

// appendOptional tells nil from an empty string: 0, or 1 and the string.
func appendOptional(b []byte, s *string) []byte {
	if s == nil {
		return append(b, 0)
	}
	return fields.AppendString(append(b, 1), *s)
}

// reader reads commands and snapshots.
type reader struct{ fields.Reader }

// epoch is a producer's, never negative.
func (r *reader) epoch() int16 { return int16(r.Between(0, math.MaxInt16)) }

// producerID is never negative.
func (r *reader) producerID() int64 { return r.Between(0, math.MaxInt64) }

func (r *reader) optional(max int) *string {
	switch r.Byte() {
	case 0:
		return nil
	case 1:
		s := r.String(max)
		return &s
	}
	r.Fail("neither there nor not")
	return nil
}

// count is Count of as many as there may be bytes.
func (r *reader) count(size int) int { return r.Count(size, math.MaxInt) }
