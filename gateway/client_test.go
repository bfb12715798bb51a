package gateway

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// patience is how long anything may take on a machine that is busy with other tests. Who would wait
// for ever, or for as long as a request says, is found out by that.
const patience = 20 * time.Second

// client is a test's end of a connection.
type client struct {
	net.Conn
	t testing.TB
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(3 * patience))
	t.Cleanup(func() { conn.Close() })
	return &client{conn, t}
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads one answer, its size prefix included.
func (c *client) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(b, size[:])
	_, err := io.ReadFull(c, b[4:])
	return b, err
}

// want reads the answer to the request with that correlation id.
func (c *client) want(correlation int32, resp kmsg.Response) {
	c.t.Helper()
	b, err := c.frame()
	if err != nil {
		c.t.Fatalf("waiting for answer %d: %v", correlation, err)
	}
	if got := int32(binary.BigEndian.Uint32(b[4:])); got != correlation {
		c.t.Fatalf("answer to request %d, want %d", got, correlation)
	}
	body := b[8:]
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) && len(body) > 0 {
		body = body[1:] // no tagged fields are in the header
	}
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("answer %d: %v", correlation, err)
	}
}

// do sends a request and gives its answer.
func (c *client) do(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	c.send(encode(9, req))
	resp := req.ResponseKind()
	c.want(9, resp)
	return resp
}

// closed waits for the end of the connection and fails at anything before it.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.frame(); !isClosed(err) {
		c.t.Fatalf("want a closed connection, got %x, %v", b, err)
	}
}

func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// encode makes a request as clients do.
func encode(correlation int32, req kmsg.Request) []byte {
	b := make([]byte, 4)
	b = binary.BigEndian.AppendUint16(b, uint16(req.Key()))
	b = binary.BigEndian.AppendUint16(b, uint16(req.GetVersion()))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = binary.BigEndian.AppendUint16(b, 4)
	b = append(b, "test"...)
	if req.IsFlexible() {
		b = append(b, 0)
	}
	b = req.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// produce makes a Produce of one message per value.
func produce(acks int16, topic string, partition int32, values ...string) *kmsg.ProduceRequest {
	req := &kmsg.ProduceRequest{Acks: acks, TimeoutMillis: 10_000}
	addProduce(req, topic, partition, messageSet(values...))
	return req
}

func addProduce(req *kmsg.ProduceRequest, topic string, partition int32, set []byte) {
	req.Topics = append(req.Topics, kmsg.ProduceRequestTopic{
		Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: set}},
	})
}

func messageSet(values ...string) []byte {
	var set []byte
	for _, v := range values {
		set = binary.BigEndian.AppendUint64(set, 0)
		set = binary.BigEndian.AppendUint32(set, uint32(14+len(v)))
		at := len(set)
		set = append(set, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)
		set = binary.BigEndian.AppendUint32(set, uint32(len(v)))
		set = append(set, v...)
		binary.BigEndian.PutUint32(set[at:], crc32.ChecksumIEEE(set[at+4:]))
	}
	return set
}

// values takes a message set apart, and leaves out a message that is cut.
func values(t testing.TB, set []byte) []string {
	t.Helper()
	var out []string
	for len(set) >= 26 {
		size := int(binary.BigEndian.Uint32(set[8:]))
		if len(set) < 12+size {
			break
		}
		m := set[12 : 12+size]
		if crc32.ChecksumIEEE(m[4:]) != binary.BigEndian.Uint32(m) {
			t.Fatalf("CRC of %x", m)
		}
		out = append(out, string(m[14:])) // no keys here
		set = set[12+size:]
	}
	return out
}

// fetchOf makes a Fetch of one partition.
func fetchOf(topic string, partition int32, from int64, wait time.Duration, minBytes, maxBytes int32) *kmsg.FetchRequest {
	return &kmsg.FetchRequest{
		ReplicaID: -1, MaxWaitMillis: int32(wait / time.Millisecond), MinBytes: minBytes,
		Topics: []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{
			{Partition: partition, FetchOffset: from, PartitionMaxBytes: maxBytes},
		}}},
	}
}

func metadataOf(topics ...string) *kmsg.MetadataRequest {
	req := &kmsg.MetadataRequest{Topics: []kmsg.MetadataRequestTopic{}}
	for _, t := range topics {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &t})
	}
	return req
}

// bytesOf takes bytes out of a text of hexadecimal with blanks and "# comments".
// "text" stands for itself; size, at the beginning, for the size of the rest; crc
// for the CRC-32 of the rest of the message, whose size stands before it; crc32c
// for the CRC-32C of the rest of the record batch.
func bytesOf(text string) ([]byte, error) {
	var b []byte
	var crcs, castagnoli []int
	sized := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for line != "" && line[0] != '#' {
			var word string
			if line[0] == '"' {
				quoted, err := strconv.QuotedPrefix(line)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", line, err)
				}
				word, line = quoted, strings.TrimSpace(line[len(quoted):])
				text, _ := strconv.Unquote(word)
				b = append(b, text...)
				continue
			}
			word, line, _ = strings.Cut(line, " ")
			line = strings.TrimSpace(line)
			switch word {
			case "size":
				sized, b = true, append(b, 0, 0, 0, 0)
			case "crc":
				crcs, b = append(crcs, len(b)), append(b, 0, 0, 0, 0)
			case "crc32c":
				castagnoli, b = append(castagnoli, len(b)), append(b, 0, 0, 0, 0)
			default:
				h, err := hex.DecodeString(word)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", word, err)
				}
				b = append(b, h...)
			}
		}
	}
	for _, at := range crcs {
		end := at + int(int32(binary.BigEndian.Uint32(b[at-4:])))
		if end < at+4 || end > len(b) {
			return nil, fmt.Errorf("message of %d bytes, and %d are left", end-at, len(b)-at)
		}
		binary.BigEndian.PutUint32(b[at:], crc32.ChecksumIEEE(b[at+4:end]))
	}
	for _, at := range castagnoli {
		// Behind the length: leader epoch 4, magic 1, CRC.
		end := at - 5 + int(int32(binary.BigEndian.Uint32(b[at-9:])))
		if end < at+4 || end > len(b) {
			return nil, fmt.Errorf("batch that ends at %d, and there are %d bytes", end, len(b))
		}
		binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:end], crc32.MakeTable(crc32.Castagnoli)))
	}
	if sized {
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	}
	return b, nil
}
