package calls

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/trimaran-io/trimaran/fsm"
)

// form is how a value travels.
type form[T any] struct {
	put func(T) ([]byte, error)
	get func([]byte) (T, error)
}

// Nothing is a request or an answer without content.
type Nothing struct{}

func nothing() form[Nothing] {
	return form[Nothing]{
		func(Nothing) ([]byte, error) { return nil, nil },
		func([]byte) (Nothing, error) { return Nothing{}, nil },
	}
}

// raw is for bytes whose form is another package's affair.
func raw() form[[]byte] {
	return form[[]byte]{
		func(b []byte) ([]byte, error) { return b, nil },
		func(b []byte) ([]byte, error) { return b, nil },
	}
}

// strictJSON is for requests: what is asked may rest on a field that is not known here, so there
// must be none.
func strictJSON[T any]() form[T] {
	return form[T]{
		func(v T) ([]byte, error) { return json.Marshal(v) },
		func(b []byte) (v T, err error) {
			if err = fsm.DecodeStrictly(b, &v); err != nil && !errors.Is(err, fsm.ErrNewer) {
				err = ErrMalformed
			}
			return v, err
		},
	}
}

// looseJSON passes over fields that are not known here; malformed is the error for what is no JSON.
func looseJSON[T any](malformed error) form[T] {
	return form[T]{
		func(v T) ([]byte, error) { return json.Marshal(v) },
		func(b []byte) (v T, err error) {
			if json.Unmarshal(b, &v) != nil {
				err = malformed
			}
			return v, err
		},
	}
}

// fixed is for fields of fixed width. Bytes behind them are ignored.
func fixed[T any](malformed error, put func(fields, T) fields, get func(*Reader) T) form[T] {
	return form[T]{
		func(v T) ([]byte, error) { return put(nil, v), nil },
		func(b []byte) (T, error) {
			r := Reader{B: b}
			v := get(&r)
			if r.Bad {
				return v, malformed
			}
			return v, nil
		},
	}
}

// onPartition is a request that is about a partition and says nothing else.
func onPartition() form[fsm.PartitionID] {
	return fixed(ErrMalformed, fields.partition, (*Reader).Partition)
}

// fields puts fixed-width fields behind each other, numbers with the highest byte first.
type fields []byte

func (f fields) uint8(v uint8) fields   { return append(f, v) }
func (f fields) uint16(v uint16) fields { return binary.BigEndian.AppendUint16(f, v) }
func (f fields) uint32(v uint32) fields { return binary.BigEndian.AppendUint32(f, v) }
func (f fields) uint64(v uint64) fields { return binary.BigEndian.AppendUint64(f, v) }

// short is a text of at most 255 bytes.
func (f fields) short(s string) fields { return append(append(f, byte(len(s))), s...) }

// partition is a topic's id (16 bytes) and a partition's number.
func (f fields) partition(id fsm.PartitionID) fields {
	return append(f, id.Topic[:]...).uint32(uint32(id.Partition))
}

// Reader takes fixed-width fields off a message, numbers with the highest byte first.
type Reader struct {
	B   []byte // what is left
	Bad bool   // it was too short
}

// Bytes takes n bytes, which alias the message; nil if there are fewer.
func (r *Reader) Bytes(n int) []byte {
	if r.Bad || n < 0 || n > len(r.B) {
		r.Bad = true
		return nil
	}
	out := r.B[:n:n]
	r.B = r.B[n:]
	return out
}

// Uint8 takes one byte.
func (r *Reader) Uint8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 takes two bytes.
func (r *Reader) Uint16() uint16 {
	if b := r.Bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 takes four bytes.
func (r *Reader) Uint32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 takes eight bytes.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Short takes a text of at most 255 bytes.
func (r *Reader) Short() string { return string(r.Bytes(int(r.Uint8()))) }

// Partition takes a topic's id and a partition's number.
func (r *Reader) Partition() (id fsm.PartitionID) {
	copy(id.Topic[:], r.Bytes(len(id.Topic)))
	id.Partition = int32(r.Uint32())
	return id
}
