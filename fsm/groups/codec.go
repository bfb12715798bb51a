package groups

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/fsm"
)

// Commands and snapshots are made of these: numbers as varints (zigzag where they
// can be negative), strings and bytes with their length before them, 16 bytes of
// topic id.

// ErrMalformed is in every error about a command that cannot be applied or a
// snapshot that cannot be restored.
var ErrMalformed = errors.New("malformed")

// newer is the error about a command or a snapshot that a newer program wrote: its state became
// another by it, so the replica here must not go on without.
func newer(format string, args ...any) error {
	return fmt.Errorf("%w: "+format+", %w", append(append([]any{ErrMalformed}, args...), fsm.ErrNewer)...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// appendOptional tells nil from an empty string: 0, or 1 and the string.
func appendOptional(b []byte, s *string) []byte {
	if s == nil {
		return append(b, 0)
	}
	return appendString(append(b, 1), *s)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes such a thing apart. After the first error everything reads as zero.
// What it returns does not share memory with its input.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("too short")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("no number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("no number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 {
	v := r.varint()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail("%d is no int32", v)
		return 0
	}
	return int32(v)
}

// epoch is a producer's, never negative.
func (r *reader) epoch() int16 {
	v := r.varint()
	if v < 0 || v > math.MaxInt16 {
		r.fail("producer epoch %d", v)
		return 0
	}
	return int16(v)
}

// producerID is never negative.
func (r *reader) producerID() int64 {
	v := r.varint()
	if v < 0 {
		r.fail("producer id %d", v)
		return 0
	}
	return v
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("%d is neither no nor yes", v)
	}
	return v == 1
}

// take gives the next n bytes, which is at most max, of the input itself.
func (r *reader) take(max int) []byte {
	n := r.uvarint()
	if n > uint64(max) || n > uint64(len(r.b)) {
		r.fail("length %d, at most %d of %d", n, max, len(r.b))
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string(max int) string { return string(r.take(max)) }

func (r *reader) bytes(max int) []byte { return append([]byte{}, r.take(max)...) }

func (r *reader) optional(max int) *string {
	switch r.byte() {
	case 0:
		return nil
	case 1:
		s := r.string(max)
		return &s
	}
	r.fail("neither there nor not")
	return nil
}

func (r *reader) topicID() (id [16]byte) {
	if len(r.b) < len(id) {
		r.fail("too short for a topic id")
		return id
	}
	copy(id[:], r.b)
	r.b = r.b[len(id):]
	return id
}

// count reads how many follow, each at least size bytes long.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail("%d do not fit in %d bytes", n, len(r.b))
		return 0
	}
	return int(n)
}

// end gives the error; that something is left is one.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes left", len(r.b))
	}
	return r.err
}
