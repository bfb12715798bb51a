package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/fsm"
)

// The status API is Trimaran's own: key 21586, version 0, request header
// version 1, empty body. The answer is an error code (int16) and the JSON of
// fsm.Status with its length (int32). It travels like every Kafka request, so
// it passes shims and WebSockets too.
const (
	statusKey      = 21586
	maxStatusBytes = 256 << 20
)

// askStatus gives the cluster's status as the first broker that answers knows it,
// decoded and as it came.
func askStatus(ctx context.Context, b *brokers) (*fsm.Status, []byte, error) {
	var last error
	for {
		for _, one := range b.list {
			status, raw, err := statusOf(ctx, b, one)
			if err == nil {
				return status, raw, nil
			}
			if last = err; len(b.list) > 1 {
				last = fmt.Errorf("%s: %w", one, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, nil, b.unreachable(last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func statusOf(ctx context.Context, b *brokers, one broker) (*fsm.Status, []byte, error) {
	conn, err := b.dial(ctx, "tcp", one.addr)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, nil, err
		}
	}
	body, err := exchangeStatus(conn)
	if err != nil {
		return nil, nil, err
	}
	raw, err := statusBody(body)
	if err != nil {
		return nil, nil, err
	}
	status := new(fsm.Status)
	if err := json.Unmarshal(raw, status); err != nil {
		return nil, nil, fmt.Errorf("status is not what this version of trimaran understands: %w", err)
	}
	return status, raw, nil
}

// exchangeStatus sends the request on a fresh connection and gives the answer
// without size and correlation id.
func exchangeStatus(conn net.Conn) ([]byte, error) {
	const correlation, client = 1, "trimaran"
	req := make([]byte, 4, 64)
	req = binary.BigEndian.AppendUint16(req, statusKey)
	req = binary.BigEndian.AppendUint16(req, 0)
	req = binary.BigEndian.AppendUint32(req, correlation)
	req = binary.BigEndian.AppendUint16(req, uint16(len(client)))
	req = append(req, client...)
	binary.BigEndian.PutUint32(req, uint32(len(req)-4))
	if _, err := conn.Write(req); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it closed the connection: it wants TLS (tls://…), or is not a Trimaran node or shim")
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > maxStatusBytes || binary.BigEndian.Uint32(head[4:]) != correlation {
		return nil, errors.New("it does not answer as a Trimaran node does")
	}
	// Not allocated ahead: the size is only what the other side says.
	body, err := io.ReadAll(io.LimitReader(conn, int64(size)-4))
	if err == nil && len(body) != int(size)-4 {
		err = io.ErrUnexpectedEOF
	}
	return body, err
}

// statusBody takes the JSON out of the answer's body.
func statusBody(body []byte) ([]byte, error) {
	if len(body) < 6 {
		return nil, errors.New("answer too short for a status")
	}
	if err := kerr.ErrorForCode(int16(binary.BigEndian.Uint16(body))); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(body[2:])
	if uint64(size) != uint64(len(body)-6) {
		return nil, fmt.Errorf("status of %d bytes announced, %d came", size, len(body)-6)
	}
	return body[6:], nil
}
