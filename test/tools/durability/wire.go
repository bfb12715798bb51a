package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxAnswer bounds an answer of the cluster, in bytes.
const maxAnswer = 128 << 20

// conn is one connection with at most one request outstanding, so that the fate
// of every request is exact: an answer, or unknown because the connection broke.
type conn struct {
	net.Conn
	formatter   *kmsg.RequestFormatter
	correlation int32
	buf         []byte
}

func connect(addr string, within time.Duration) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, within)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID("durability"))}, nil
}

// request sends a request of a version without flexible headers and reads its
// answer. After an error the connection is of no more use.
func (c *conn) request(req kmsg.Request, within time.Duration) (kmsg.Response, error) {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	c.correlation++
	c.buf = c.formatter.AppendRequest(c.buf[:0], req, c.correlation)
	if _, err := c.Write(c.buf); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size < 4 || size > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is announced", size)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != c.correlation {
		return nil, fmt.Errorf("answer to request %d came for request %d", got, c.correlation)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("answer cannot be read: %w", err)
	}
	return resp, nil
}

// message is one message of magic 0.
type message struct {
	offset     int64
	key, value []byte
}

// appendMessage writes a message of magic 0 as a 0.8 producer does: the offset
// (which the broker replaces), the size, and CRC-32 over what follows the CRC.
func appendMessage(dst []byte, m message) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(14+len(m.key)+len(m.value)))
	crc := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0 /* magic */, 0 /* attributes */)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.key)))
	dst = append(dst, m.key...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.value)))
	dst = append(dst, m.value...)
	binary.BigEndian.PutUint32(dst[crc:], crc32.ChecksumIEEE(dst[crc+4:]))
	return dst
}

// parseMessages reads an uncompressed message set of magic 0. The last message
// may be cut off, as brokers do at max_bytes, and is then left out.
func parseMessages(set []byte) ([]message, error) {
	var all []message
	for len(set) >= 12 {
		m := message{offset: int64(binary.BigEndian.Uint64(set))}
		size := int64(int32(binary.BigEndian.Uint32(set[8:])))
		if size < 14 {
			return nil, fmt.Errorf("message at offset %d has size %d", m.offset, size)
		}
		if int64(len(set)-12) < size {
			break
		}
		body := set[12 : 12+size]
		set = set[12+size:]
		if crc := binary.BigEndian.Uint32(body); crc != crc32.ChecksumIEEE(body[4:]) {
			return nil, fmt.Errorf("message at offset %d has a wrong CRC", m.offset)
		}
		if body[4] != 0 || body[5] != 0 {
			return nil, fmt.Errorf("message at offset %d has magic %d and attributes %d, want 0 and 0", m.offset, body[4], body[5])
		}
		rest := body[6:]
		var err error
		if m.key, rest, err = cutBytes(rest); err != nil {
			return nil, fmt.Errorf("message at offset %d: key: %w", m.offset, err)
		}
		if m.value, rest, err = cutBytes(rest); err != nil {
			return nil, fmt.Errorf("message at offset %d: value: %w", m.offset, err)
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("message at offset %d has %d bytes too many", m.offset, len(rest))
		}
		all = append(all, m)
	}
	return all, nil
}

func cutBytes(b []byte) (field, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errors.New("cut off")
	}
	n := int64(int32(binary.BigEndian.Uint32(b)))
	b = b[4:]
	if n == -1 {
		return nil, b, nil
	}
	if n < 0 || n > int64(len(b)) {
		return nil, nil, fmt.Errorf("%d bytes announced, %d are there", n, len(b))
	}
	return bytes.Clone(b[:n]), b[n:], nil
}
