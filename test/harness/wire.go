package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"
)

// Wire is a client that knows the protocol of Kafka 0.8 and nothing else: it
// was written from the protocol guide, sends what it is told, byte for byte, and
// never tries again. Each method is one request and its answer.
type Wire struct {
	Conn   net.Conn
	Client string // client id; "wire" if empty
	next   int32
}

// DialWire connects over TCP. Every later read and write has a time limit of 30 s
// unless SetDeadline says otherwise.
func DialWire(addr string) (*Wire, error) { return DialWireWithin(addr, 5*time.Second) }

// DialWireWithin is DialWire with a limit on connecting. An address that begins with unix: is that
// of nodes' Unix sockets, see Node.Socket.
func DialWireWithin(addr string, within time.Duration) (*Wire, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return NewWire(conn), nil
}

// NewWire speaks over a connection that is there already.
func NewWire(conn net.Conn) *Wire {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &Wire{Conn: conn}
}

// Close closes the connection.
func (w *Wire) Close() error { return w.Conn.Close() }

// Primitive types of the protocol, appended to a request.
func Int8(b []byte, v int8) []byte   { return append(b, byte(v)) }
func Int16(b []byte, v int16) []byte { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func Int32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }
func Int64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

// Str appends a STRING: a 2-byte length and the bytes.
func Str(b []byte, s string) []byte { return append(Int16(b, int16(len(s))), s...) }

// Bytes appends BYTES: a 4-byte length, -1 for nil, and the bytes.
func Bytes(b, v []byte) []byte {
	if v == nil {
		return Int32(b, -1)
	}
	return append(Int32(b, int32(len(v))), v...)
}

// Message appends one message of a message set, magic 0, as a producer of 0.8
// writes it: offset, size, CRC-32 (IEEE) of what follows it, magic, attributes
// (the codec), key, value.
func Message(b []byte, offset int64, codec int8, key, value []byte) []byte {
	body := Bytes(Bytes(Int8(Int8(nil, 0), codec), key), value)
	b = Int64(b, offset)
	b = Int32(b, int32(4+len(body)))
	b = Int32(b, int32(crc32.ChecksumIEEE(body)))
	return append(b, body...)
}

// Entry is one message as a fetch gave it.
type Entry struct {
	Offset     int64
	Codec      int8
	Attributes int8 // the codec among them
	Magic      int8
	Key, Value []byte
}

// Messages takes a message set apart and checks every CRC. A message cut at the
// end is left out, as the protocol allows; cut tells that there was one.
func Messages(set []byte) (out []Entry, cut bool, err error) {
	for len(set) > 0 {
		if len(set) < 12 {
			return out, true, nil
		}
		offset := int64(binary.BigEndian.Uint64(set))
		size := int(int32(binary.BigEndian.Uint32(set[8:])))
		if size < 14 {
			return out, false, fmt.Errorf("message at offset %d has size %d", offset, size)
		}
		if len(set)-12 < size {
			return out, true, nil
		}
		m := set[12 : 12+size]
		set = set[12+size:]
		if got, want := crc32.ChecksumIEEE(m[4:]), binary.BigEndian.Uint32(m); got != want {
			return out, false, fmt.Errorf("message at offset %d: CRC %08x, want %08x", offset, got, want)
		}
		e := Entry{Offset: offset, Magic: int8(m[4]), Codec: int8(m[5] & 7), Attributes: int8(m[5])}
		rest := m[6:]
		for _, field := range []*[]byte{&e.Key, &e.Value} {
			if len(rest) < 4 {
				return out, false, fmt.Errorf("message at offset %d is short", offset)
			}
			n := int(int32(binary.BigEndian.Uint32(rest)))
			rest = rest[4:]
			if n < 0 {
				continue
			}
			if n > len(rest) {
				return out, false, fmt.Errorf("message at offset %d: length %d runs past its end", offset, n)
			}
			*field, rest = rest[:n:n], rest[n:]
		}
		if len(rest) > 0 {
			return out, false, fmt.Errorf("message at offset %d has %d bytes too many", offset, len(rest))
		}
		out = append(out, e)
	}
	return out, false, nil
}

// Frame puts the size in front of a request.
func Frame(request []byte) []byte { return append(Int32(nil, int32(len(request))), request...) }

// Request gives a framed request: size, api key, version, correlation id, client id "wire", body.
func Request(key, version int16, correlation int32, body []byte) []byte {
	return requestOf("wire", key, version, correlation, body)
}

func requestOf(client string, key, version int16, correlation int32, body []byte) []byte {
	b := Int16(Int16(nil, key), version)
	b = Str(Int32(b, correlation), client)
	return Frame(append(b, body...))
}

func (w *Wire) clientID() string {
	if w.Client == "" {
		return "wire"
	}
	return w.Client
}

// Send writes bytes as they are.
func (w *Wire) Send(b []byte) error {
	_, err := w.Conn.Write(b)
	return err
}

// ReadFrame reads one answer: its correlation id and the rest.
func (w *Wire) ReadFrame() (correlation int32, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(w.Conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(head[:])))
	if n < 4 || n > 1<<28 {
		return 0, nil, fmt.Errorf("answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(w.Conn, b); err != nil {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:], nil
}

// Do sends one request and reads one answer, whose correlation id must match.
func (w *Wire) Do(key, version int16, body []byte) ([]byte, error) {
	w.next++
	return w.exchange(requestOf(w.clientID(), key, version, w.next, body), w.next)
}

// exchange sends a framed request of that correlation id and reads its answer.
func (w *Wire) exchange(request []byte, id int32) ([]byte, error) {
	if err := w.Send(request); err != nil {
		return nil, err
	}
	got, answer, err := w.ReadFrame()
	if err != nil {
		return nil, err
	}
	if got != id {
		return nil, fmt.Errorf("answer to request %d has correlation id %d", id, got)
	}
	return answer, nil
}

// Reader takes an answer apart; Err keeps the first thing that went wrong.
type Reader struct {
	B   []byte
	Err error
}

func (r *Reader) take(n int) []byte {
	if r.Err == nil && (n < 0 || n > len(r.B)) {
		r.Err = fmt.Errorf("answer is short: %d bytes wanted, %d left", n, len(r.B))
	}
	if r.Err != nil {
		return make([]byte, max(0, min(n, 8)))
	}
	out := r.B[:n]
	r.B = r.B[n:]
	return out
}

func (r *Reader) Int8() int8   { return int8(r.take(1)[0]) }
func (r *Reader) Int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *Reader) Int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }
func (r *Reader) Int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

// Str reads a STRING, "" for a null one.
func (r *Reader) Str() string {
	n := r.Int16()
	if n < 0 {
		return ""
	}
	return string(r.take(int(n)))
}

// Bytes reads BYTES, nil for null.
func (r *Reader) Bytes() []byte {
	n := r.Int32()
	if n < 0 {
		return nil
	}
	return r.take(int(n))
}

// End reports an error when something is left over.
func (r *Reader) End() error {
	if r.Err == nil && len(r.B) > 0 {
		return fmt.Errorf("%d bytes left over at the end of the answer", len(r.B))
	}
	return r.Err
}

// ProduceBody is a Produce v0 request for one partition.
func ProduceBody(topic string, partition int32, acks int16, timeoutMs int32, set []byte) []byte {
	b := Int32(Int16(nil, acks), timeoutMs)
	b = Str(Int32(b, 1), topic)
	return Bytes(Int32(Int32(b, 1), partition), set)
}

// ErrorCode is a protocol error code in an answer.
type ErrorCode int16

func (e ErrorCode) Error() string { return fmt.Sprintf("error code %d", int16(e)) }

// ReadProduce takes a Produce v0 answer for one partition apart.
func ReadProduce(answer []byte) (base int64, err error) {
	_, _, base, err = readProduce(answer)
	return base, err
}

func readProduce(answer []byte) (topic string, partition int32, base int64, err error) {
	r := Reader{B: answer}
	if n := r.Int32(); n != 1 && r.Err == nil {
		return "", 0, 0, fmt.Errorf("%d topics in the answer", n)
	}
	topic = r.Str()
	if n := r.Int32(); n != 1 && r.Err == nil {
		return "", 0, 0, fmt.Errorf("%d partitions in the answer", n)
	}
	partition = r.Int32()
	code := r.Int16()
	base = r.Int64()
	if err := r.End(); err != nil {
		return "", 0, 0, err
	}
	if code != 0 {
		err = ErrorCode(code)
	}
	return topic, partition, base, err
}

// Produce sends values as one message set and gives the offset of the first.
func (w *Wire) Produce(topic string, partition int32, acks int16, values ...string) (int64, error) {
	var set []byte
	for _, v := range values {
		set = Message(set, 0, 0, nil, []byte(v))
	}
	return w.ProduceSet(topic, partition, acks, 10*time.Second, set)
}

// ProduceSet sends a message set, which the cluster may take that long for, and gives the offset of
// its first message. An answer about another partition is an error, and so is one without an
// offset.
func (w *Wire) ProduceSet(topic string, partition int32, acks int16, within time.Duration, set []byte) (int64, error) {
	answer, err := w.Do(0, 0, ProduceBody(topic, partition, acks, int32(within.Milliseconds()), set))
	if err != nil {
		return 0, err
	}
	name, number, base, err := readProduce(answer)
	switch {
	case err != nil:
		return base, err
	case name != topic || number != partition:
		return 0, fmt.Errorf("the answer is for %s-%d", name, number)
	case base < 0:
		return 0, fmt.Errorf("acknowledged at offset %d", base)
	}
	return base, nil
}

// FetchBody is a Fetch v0 request for one partition.
func FetchBody(topic string, partition int32, from int64, maxWaitMs, minBytes, maxBytes int32) []byte {
	b := Int32(Int32(Int32(nil, -1), maxWaitMs), minBytes)
	b = Str(Int32(b, 1), topic)
	b = Int64(Int32(Int32(b, 1), partition), from)
	return Int32(b, maxBytes)
}

// ReadFetch takes a Fetch v0 answer for one partition apart.
func ReadFetch(answer []byte) (highWatermark int64, set []byte, err error) {
	r := Reader{B: answer}
	if n := r.Int32(); n != 1 && r.Err == nil {
		return 0, nil, fmt.Errorf("%d topics in the answer", n)
	}
	r.Str()
	if n := r.Int32(); n != 1 && r.Err == nil {
		return 0, nil, fmt.Errorf("%d partitions in the answer", n)
	}
	r.Int32()
	code := r.Int16()
	highWatermark = r.Int64()
	set = r.Bytes()
	if err := r.End(); err != nil {
		return 0, nil, err
	}
	if code != 0 {
		return highWatermark, set, ErrorCode(code)
	}
	return highWatermark, set, nil
}

// Fetch asks once.
func (w *Wire) Fetch(topic string, partition int32, from int64, maxWaitMs, minBytes, maxBytes int32) (int64, []byte, error) {
	answer, err := w.Do(1, 0, FetchBody(topic, partition, from, maxWaitMs, minBytes, maxBytes))
	if err != nil {
		return 0, nil, err
	}
	return ReadFetch(answer)
}

// FetchAll reads uncompressed messages from the start until `until` are there or
// the time is over. It asks again only after LEADER_NOT_AVAILABLE (5) and
// NOT_LEADER_FOR_PARTITION (6), which the protocol calls retriable.
func (w *Wire) FetchAll(topic string, partition int32, until int64, within time.Duration) ([]Entry, error) {
	var out []Entry
	deadline := time.Now().Add(within)
	w.Conn.SetDeadline(deadline.Add(5 * time.Second))
	for int64(len(out)) < until {
		if time.Now().After(deadline) {
			return out, fmt.Errorf("%d of %d records of %s-%d within %s", len(out), until, topic, partition, within)
		}
		next := int64(0)
		if len(out) > 0 {
			next = out[len(out)-1].Offset + 1
		}
		_, set, err := w.Fetch(topic, partition, next, 200, 1, 1<<20)
		var code ErrorCode
		if errors.As(err, &code) && (code == 5 || code == 6) {
			continue
		}
		if err != nil {
			return out, err
		}
		entries, _, err := Messages(set)
		if err != nil {
			return out, err
		}
		for _, e := range entries {
			if e.Offset >= next {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// ListOffsets asks ListOffsets v0 for one partition.
func (w *Wire) ListOffsets(topic string, partition int32, timestamp int64, max int32) ([]int64, error) {
	b := Str(Int32(Int32(nil, -1), 1), topic)
	b = Int32(Int64(Int32(Int32(b, 1), partition), timestamp), max)
	answer, err := w.Do(2, 0, b)
	if err != nil {
		return nil, err
	}
	r := Reader{B: answer}
	topics, name, partitions, number := r.Int32(), r.Str(), r.Int32(), r.Int32()
	if r.Err == nil && (topics != 1 || name != topic || partitions != 1 || number != partition) {
		return nil, fmt.Errorf("the answer is for %s-%d", name, number)
	}
	code := r.Int16()
	n := r.Int32()
	var out []int64
	for range n {
		out = append(out, r.Int64())
		if r.Err != nil {
			break
		}
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	if code != 0 {
		return out, ErrorCode(code)
	}
	return out, nil
}

// Metadata is a Metadata v0 answer.
type Metadata struct {
	Brokers []Broker
	Topics  []TopicMetadata
}

// Broker is one broker of a Metadata answer.
type Broker struct {
	ID   int32
	Host string
	Port int32
}

// TopicMetadata is one topic of a Metadata answer.
type TopicMetadata struct {
	Code       int16
	Name       string
	Partitions []PartitionMetadata
}

// PartitionMetadata is one partition of a Metadata answer.
type PartitionMetadata struct {
	Code          int16
	ID            int32
	Leader        int32
	Replicas, ISR []int32
}

// Metadata asks Metadata v0; no topic named means all.
func (w *Wire) Metadata(topics ...string) (*Metadata, error) {
	b := Int32(nil, int32(len(topics)))
	for _, t := range topics {
		b = Str(b, t)
	}
	answer, err := w.Do(3, 0, b)
	if err != nil {
		return nil, err
	}
	return ReadMetadata(answer)
}

// ReadMetadata takes a Metadata v0 answer apart.
func ReadMetadata(answer []byte) (*Metadata, error) {
	r := &Reader{B: answer}
	var m Metadata
	for n := r.Int32(); n > 0 && r.Err == nil; n-- {
		m.Brokers = append(m.Brokers, Broker{r.Int32(), r.Str(), r.Int32()})
	}
	for n := r.Int32(); n > 0 && r.Err == nil; n-- {
		t := TopicMetadata{Code: r.Int16(), Name: r.Str()}
		for k := r.Int32(); k > 0 && r.Err == nil; k-- {
			p := PartitionMetadata{Code: r.Int16(), ID: r.Int32(), Leader: r.Int32()}
			for _, list := range []*[]int32{&p.Replicas, &p.ISR} {
				for j := r.Int32(); j > 0 && r.Err == nil; j-- {
					*list = append(*list, r.Int32())
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		m.Topics = append(m.Topics, t)
	}
	return &m, r.End()
}
