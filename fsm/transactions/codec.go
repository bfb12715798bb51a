package transactions

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/trimaran-io/trimaran/fsm"
)

// Commands and snapshots are made of these: numbers as varints (zigzag where they can be negative),
// strings with their length before them, 16 bytes of topic id.

// ErrMalformed is in every error about a command that cannot be applied or a snapshot that cannot
// be restored.
var ErrMalformed = errors.New("malformed")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// newer is the error about a command or a snapshot that a newer program wrote: its state became
// another by it, so the replica here must not go on without.
func newer(format string, args ...any) error {
	return fmt.Errorf("%w, %w", malformed(format, args...), fsm.ErrNewer)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes such a thing apart. After the first error everything reads as zero. What it returns
// does not share memory with its input.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(malformed("too short"))
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(malformed("no number"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(malformed("no number"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int32() int32 { return int32(r.between(math.MinInt32, math.MaxInt32)) }
func (r *reader) int16() int16 { return int16(r.between(math.MinInt16, math.MaxInt16)) }

func (r *reader) between(least, most int64) int64 {
	v := r.varint()
	if v < least || v > most {
		r.fail(malformed("%d is not between %d and %d", v, least, most))
		return 0
	}
	return v
}

// string reads one of 1 to max bytes.
func (r *reader) string(max int) string {
	n := r.uvarint()
	if n == 0 || n > uint64(max) || n > uint64(len(r.b)) {
		r.fail(malformed("length %d, at most %d of %d", n, max, len(r.b)))
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

func (r *reader) topicID() (id fsm.TopicID) {
	if len(r.b) < len(id) {
		r.fail(malformed("too short for a topic id"))
		return id
	}
	copy(id[:], r.b)
	r.b = r.b[len(id):]
	return id
}

// count reads how many follow, at most max, each at least size bytes long.
func (r *reader) count(size, max int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) || n > uint64(max) {
		r.fail(malformed("%d do not fit in %d bytes", n, len(r.b)))
		return 0
	}
	return int(n)
}

// end gives the error; that something is left is one.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail(malformed("%d bytes left", len(r.b)))
	}
	return r.err
}
