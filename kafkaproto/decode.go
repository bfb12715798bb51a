package kafkaproto

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxElements bounds the array elements and tagged fields of one request, all
// levels together.
// kmsg makes a struct of up to about 100 bytes for an element that can be two
// bytes on the wire.
const maxElements = 1 << 18

// DecodeRequest decodes the body of a request whose header is h. The structure is walked before
// kmsg sees it: kmsg allocates as many structs as an array claims to have, and goes round a loop as
// often as a list of tags claims to be long. So memory is bounded by what is really there, and by
// 262,144 array elements and tagged fields in all; admit, unless it is nil, is asked with their
// number before that, and its error is given back. Byte slices of the request (record sets) alias
// body, strings do not. Bytes after the end are an error, but for librdkafka's (see slack). Errors
// are ErrNotServed for a key and version outside Served, else ErrMalformed.
func DecodeRequest(h Header, body []byte, admit func(elements int) error) (kmsg.Request, error) {
	api, ok := Lookup(h.Key)
	if !ok || !api.Serves(h.Version) {
		return nil, fmt.Errorf("%w: key %d version %d", ErrNotServed, h.Key, h.Version)
	}
	return decode(h, shapes()[h.Key][h.Version-api.Min], body, admit)
}

func decode(h Header, s shape, body []byte, admit func(elements int) error) (kmsg.Request, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s v%d "+format, append([]any{ErrMalformed, kmsg.NameForKey(h.Key), h.Version}, args...)...)
	}
	w := walker{rest: body}
	w.walk(s)
	switch {
	case w.elements > maxElements:
		return nil, bad("with more than %d array elements and tagged fields", maxElements)
	case w.bad:
		return nil, bad("ends early or has an impossible length")
	case len(w.rest) > slack(h, body):
		return nil, bad("has %d bytes after its end", len(w.rest))
	}
	if admit != nil {
		if err := admit(w.elements); err != nil {
			return nil, err
		}
	}
	body = body[:len(body)-len(w.rest)]
	req := kmsg.RequestForKey(h.Key)
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		return nil, bad("cannot be read: %w", err)
	}
	return req, nil
}

// slack gives how many bytes a request may have after its end. librdkafka, when it
// asks Metadata from version 9 on for all topics, writes the null array as four
// bytes instead of one (its issue 5049), so that what follows reads as zeros and up
// to three bytes are left over. Kafka's brokers ignore what is left over of any
// request.
func slack(h Header, body []byte) int {
	if h.Key == int16(kmsg.Metadata) && h.Version >= 9 && len(body) >= 4 && [4]byte(body) == [4]byte{} {
		return 3
	}
	return 0
}

// walker goes over the structure of a request without allocating. Once bad, it
// stays bad and empty.
type walker struct {
	rest     []byte
	elements int // of arrays, and tagged fields: kmsg keeps those it does not know in a map
	bad      bool
}

func (w *walker) walk(s shape) {
	for i := range s {
		if w.bad {
			return
		}
		switch f := &s[i]; f.kind {
		case kindFixed:
			w.skip(int64(f.size), 0)
		case kindString:
			w.skip(w.int16(), -1)
		case kindBytes:
			w.skip(w.int32(), -1)
		case kindCompact:
			w.skip(w.uvarint()-1, -1)
		case kindArray:
			w.array(w.int32(), f.of)
		case kindCompactArray:
			w.array(w.uvarint()-1, f.of)
		case kindNullable:
			if w.int8() != -1 {
				w.walk(f.of)
			}
		case kindTags:
			w.tags()
		}
	}
}

func (w *walker) array(n int64, of shape) {
	if n < -1 || n > int64(len(w.rest)) {
		w.fail()
		return
	}
	for ; n > 0 && !w.bad; n-- {
		w.count()
		w.walk(of)
	}
}

// count counts an element, and fails when there are too many.
func (w *walker) count() {
	if w.elements++; w.elements > maxElements {
		w.fail()
	}
}

// tags skips a list of tagged fields (KIP-482).
func (w *walker) tags() {
	for n := w.uvarint(); n > 0 && !w.bad; n-- {
		w.count()
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

func (w *walker) int8() int64 {
	if len(w.rest) < 1 {
		w.fail()
		return -1
	}
	v := int8(w.rest[0])
	w.rest = w.rest[1:]
	return int64(v)
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
