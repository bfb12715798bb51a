package kafkaproto

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxElements bounds the array elements of one request, all levels together.
// kmsg makes a struct of up to about 100 bytes for an element that can be two
// bytes on the wire.
const maxElements = 1 << 18

// DecodeRequest decodes the body of a request whose header is h. The structure
// is walked before kmsg sees it: kmsg allocates as many structs as an array
// claims to have, and goes round a loop as often as a list of tags claims to be
// long. So memory is bounded by what is really there, and by 262,144 array
// elements in all. Byte slices of the request (record sets) alias body, strings
// do not. Bytes after the end are an error. Errors are ErrNotServed for a key
// and version outside Served, else ErrMalformed.
func DecodeRequest(h Header, body []byte) (kmsg.Request, error) {
	api, ok := Lookup(h.Key)
	if !ok || !api.Serves(h.Version) {
		return nil, fmt.Errorf("%w: key %d version %d", ErrNotServed, h.Key, h.Version)
	}
	w := walker{rest: body}
	w.shape(api.shapes[h.Version-api.Min])
	switch {
	case w.elements > maxElements:
		return nil, fmt.Errorf("%w: %s v%d with more than %d array elements", ErrMalformed, api.Name, h.Version, maxElements)
	case w.bad:
		return nil, fmt.Errorf("%w: %s v%d ends early or has an impossible length", ErrMalformed, api.Name, h.Version)
	case len(w.rest) > 0:
		return nil, fmt.Errorf("%w: %s v%d has %d bytes after its end", ErrMalformed, api.Name, h.Version, len(w.rest))
	}
	req := kmsg.RequestForKey(h.Key)
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: %s v%d: %w", ErrMalformed, api.Name, h.Version, err)
	}
	return req, nil
}

// walker goes over the structure of a request without allocating. Once bad, it
// stays bad and empty.
type walker struct {
	rest     []byte
	elements int
	bad      bool
}

// shape walks the structure s: a digit is a fixed field of so many bytes, s a
// string, n a nullable string, b nullable bytes, c a compact string, t a list
// of tagged fields, [...] an array of what is inside.
func (w *walker) shape(s string) {
	for i := 0; i < len(s) && !w.bad; i++ {
		switch c := s[i]; c {
		case 's':
			w.skip(w.int16(), 0)
		case 'n':
			w.skip(w.int16(), -1)
		case 'b':
			w.skip(w.int32(), -1)
		case 'c':
			w.skip(w.uvarint()-1, 0)
		case 't':
			w.tags()
		case '[':
			end := i + closing(s[i:])
			w.array(s[i+1 : end])
			i = end
		default:
			w.skip(int64(c-'0'), 0)
		}
	}
}

// closing finds the bracket that ends the array s starts with.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	panic("kafkaproto: shape without closing bracket: " + s)
}

func (w *walker) array(element string) {
	n := w.int32()
	if n < -1 || n > int64(len(w.rest)) {
		w.fail()
		return
	}
	for ; n > 0 && !w.bad; n-- {
		if w.elements++; w.elements > maxElements {
			w.fail()
			return
		}
		w.shape(element)
	}
}

// tags skips a list of tagged fields (KIP-482).
func (w *walker) tags() {
	for n := w.uvarint(); n > 0 && !w.bad; n-- {
		w.uvarint()
		w.skip(w.uvarint(), 0)
	}
}

// skip goes over n bytes; a negative n is null where n is at least least.
func (w *walker) skip(n, least int64) {
	if n < least || n > int64(len(w.rest)) {
		w.fail()
		return
	}
	w.rest = w.rest[max(n, 0):]
}

func (w *walker) int16() int64 {
	if len(w.rest) < 2 {
		w.fail()
		return 0
	}
	v := int16(binary.BigEndian.Uint16(w.rest))
	w.rest = w.rest[2:]
	return int64(v)
}

func (w *walker) int32() int64 {
	if len(w.rest) < 4 {
		w.fail()
		return 0
	}
	v := int32(binary.BigEndian.Uint32(w.rest))
	w.rest = w.rest[4:]
	return int64(v)
}

// uvarint reads an unsigned varint of at most 32 bits.
func (w *walker) uvarint() int64 {
	v, n := binary.Uvarint(w.rest)
	if n <= 0 || n > 5 || v > 0xffffffff {
		w.fail()
		return 0
	}
	w.rest = w.rest[n:]
	return int64(v)
}

func (w *walker) fail() { w.rest, w.bad = nil, true }
