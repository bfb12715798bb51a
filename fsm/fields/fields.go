// Package fields is what commands and snapshots of shards are made of: numbers as varints (zigzag
// where they can be negative), strings and bytes with their length before them, 16 bytes of topic
// id.
//
// You are here: packages groups and transactions write with the Append functions and read with a
// Reader. What stands where is their affair.
package fields

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/fsm"
)

// ErrMalformed is in every error about a command that cannot be applied or a snapshot that cannot
// be restored.
var ErrMalformed = errors.New("malformed")

// Malformed makes such an error.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Newer is the error about a command or a snapshot that a newer program wrote: its state became
// another by it, so the replica here must not go on without.
func Newer(format string, args ...any) error {
	return fmt.Errorf("%w, %w", Malformed(format, args...), fsm.ErrNewer)
}

func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func AppendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// Reader takes such a thing apart. After the first error everything reads as zero. What it returns
// does not share memory with its input.
type Reader struct {
	B   []byte // what is left
	Err error
}

// Fail notes an error, unless there is one, as Malformed.
func (r *Reader) Fail(format string, args ...any) { r.FailWith(Malformed(format, args...)) }

// FailWith is Fail with another error.
func (r *Reader) FailWith(err error) {
	if r.Err == nil {
		r.Err = err
	}
	r.B = nil
}

func (r *Reader) Byte() byte {
	if len(r.B) == 0 {
		r.Fail("too short")
		return 0
	}
	c := r.B[0]
	r.B = r.B[1:]
	return c
}

func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	r.B = r.B[n:]
	return v
}

func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.B)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	r.B = r.B[n:]
	return v
}

// Between reads a number that has bounds.
func (r *Reader) Between(least, most int64) int64 {
	v := r.Varint()
	if v < least || v > most {
		r.Fail("%d is not between %d and %d", v, least, most)
		return 0
	}
	return v
}

func (r *Reader) Int32() int32 { return int32(r.Between(math.MinInt32, math.MaxInt32)) }
func (r *Reader) Int16() int16 { return int16(r.Between(math.MinInt16, math.MaxInt16)) }

func (r *Reader) Bool() bool { // 0 or 1
	v := r.Byte()
	if v > 1 {
		r.Fail("%d is neither no nor yes", v)
	}
	return v == 1
}

// take gives the next n bytes, which is at most max, of the input itself.
func (r *Reader) take(max int) []byte {
	n := r.Uvarint()
	if n > uint64(max) || n > uint64(len(r.B)) {
		r.Fail("length %d, at most %d of %d", n, max, len(r.B))
		return nil
	}
	v := r.B[:n]
	r.B = r.B[n:]
	return v
}

// String reads one of at most max bytes.
func (r *Reader) String(max int) string { return string(r.take(max)) }

// Bytes reads max bytes at most; they are never nil.
func (r *Reader) Bytes(max int) []byte { return append([]byte{}, r.take(max)...) }

func (r *Reader) TopicID() (id fsm.TopicID) {
	if len(r.B) < len(id) {
		r.Fail("too short for a topic id")
		return id
	}
	copy(id[:], r.B)
	r.B = r.B[len(id):]
	return id
}

// Count reads how many follow, at most max, each at least size bytes long.
func (r *Reader) Count(size, max int) int {
	n := r.Uvarint()
	if n > uint64(len(r.B)/size) || n > uint64(max) {
		r.Fail("%d do not fit in %d bytes", n, len(r.B))
		return 0
	}
	return int(n)
}

// End gives the error; that something is left is one.
func (r *Reader) End() error {
	if r.Err == nil && len(r.B) > 0 {
		r.Fail("%d bytes left", len(r.B))
	}
	return r.Err
}
