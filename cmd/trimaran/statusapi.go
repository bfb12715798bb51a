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

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// Three APIs are Trimaran's own, in version 0 with request header version 1: Status,
// key 21586, with an empty body, ReplicaCheck, key 21587, with a topic's name
// (int16 length), a partition (int32) and an offset (int64), and Administer, key 21588, with
// the JSON of admin.Request. The answer is an error
// code (int16) and JSON with its length (int32), of admin.Status,
// admin.PartitionCheck and admin.Answer. They travel like every Kafka request, so they pass shims
// and WebSockets too.
const (
	statusKey       = 21586
	replicaCheckKey = 21587
	administerKey   = 21588
	maxStatusBytes  = 256 << 20
)

// confirmPatience is how long a status is asked for again that the catalog's leader did not
// confirm: longer than an election takes.
const confirmPatience = 5 * time.Second

// askStatus gives the cluster's status, decoded and as it came, of the first broker that has it
// confirmed. If none has within confirmPatience it is that of one which has not: see doubtOf.
func askStatus(ctx context.Context, b *brokers) (best *admin.Status, raw []byte, err error) {
	err = askRounds(ctx, b, statusKey, nil, confirmPatience, func(answer []byte) (bool, error) {
		status, err := readStatus(answer)
		if err == nil && (best == nil || status.Confirmed || len(status.Nodes) >= len(best.Nodes)) {
			best, raw = status, answer
		}
		return err == nil && status.Confirmed, err
	})
	return best, raw, err
}

func readStatus(answer []byte) (*admin.Status, error) {
	var status struct {
		admin.Status
		Confirmed *bool `json:"confirmed"`
	}
	if err := decodeOwn(answer, &status); err != nil {
		return nil, err
	}
	// A node of an older program does not say. Its catalog is not the newest if it is empty, for
	// sure.
	status.Status.Confirmed = status.ClusterID != "" && len(status.Nodes) > 0
	if status.Confirmed != nil {
		status.Status.Confirmed = *status.Confirmed
	}
	return &status.Status, nil
}

// doubtOf is nil if the status tells how things are, and else why that is not known. Commands that
// show it end with it, so that a script does not take what is missing for gone.
func doubtOf(status *admin.Status) error {
	switch {
	case status.Confirmed:
		return nil
	case status.Unconfirmed == "":
		return errors.New("not confirmed: the node that answers does not know the cluster yet")
	}
	return errors.New("not confirmed: " + status.Unconfirmed)
}

// askReplicaCheck has the replicas of a partition compared from an offset on.
func askReplicaCheck(ctx context.Context, b *brokers, topic string, partition int32, from fsm.Offset) (*admin.PartitionCheck, error) {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
	body = append(body, topic...)
	body = binary.BigEndian.AppendUint32(body, uint32(partition))
	body = binary.BigEndian.AppendUint64(body, uint64(from))
	check := new(admin.PartitionCheck)
	err := askOwn(ctx, b, replicaCheckKey, body, check)
	return check, err
}

// askOwn asks brokers in turn until one answers or ctx ends, and decodes the JSON.
func askOwn(ctx context.Context, b *brokers, key uint16, request []byte, answer any) error {
	return askRounds(ctx, b, key, request, 0, func(raw []byte) (bool, error) {
		return true, decodeOwn(raw, answer)
	})
}

func decodeOwn(raw []byte, answer any) error {
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("the answer is not what this version of trimaran understands: %w", err)
	}
	return nil
}

// isDenial says whether it is of no use to ask again, or elsewhere: it is about who asks.
func isDenial(e *kerr.Error) bool {
	switch e.Code {
	case kerr.ClusterAuthorizationFailed.Code, kerr.SaslAuthenticationFailed.Code, kerr.IllegalSaslState.Code:
		return true
	}
	return false
}

// denial explains an error that a login would have prevented.
func denial(err error) error {
	if errors.Is(err, kerr.IllegalSaslState) {
		return fmt.Errorf("%w\nThe cluster wants to know who asks: --user, --token-file or --tls-cert says it", err)
	}
	return err
}

// askRounds asks brokers in turn until take has enough of what they answer or has an error, or ctx
// ends. Where there were answers, but none that was enough, it ends after patience, without an
// error.
func askRounds(ctx context.Context, b *brokers, key uint16, request []byte, patience time.Duration, take func(raw []byte) (enough bool, err error)) error {
	var last error
	answered := false
	for began := time.Now(); ; {
		for _, one := range b.list {
			turn, cancel := b.turn(ctx)
			raw, err := askOneOwn(turn, b, one, key, request)
			cancel()
			if err == nil {
				if enough, err := take(raw); enough || err != nil {
					return err
				}
				answered = true
				continue
			}
			if e := (*kerr.Error)(nil); errors.As(err, &e) && !e.Retriable && (key != statusKey || isDenial(e)) {
				return denial(err)
			}
			if len(b.list) > 1 {
				err = fmt.Errorf("%s: %w", one, err)
			}
			if last == nil || !timedOut(err) { // as in ask
				last = err
			}
		}
		if answered && time.Since(began) >= patience {
			return nil
		}
		select {
		case <-ctx.Done():
			if answered {
				return nil
			}
			return b.unreachable(last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func askOneOwn(ctx context.Context, b *brokers, one broker, key uint16, request []byte) ([]byte, error) {
	conn, err := b.dial(ctx, "tcp", one.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	host, _, _ := net.SplitHostPort(one.addr)
	var body []byte
	if err = b.logIn(ctx, conn, host); err == nil {
		body, err = exchangeOwn(conn, key, request)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err() // which closed the connection
	case err != nil:
		return nil, err
	}
	return ownBody(body)
}

// exchangeOwn sends the request on a fresh connection and gives the answer
// without size and correlation id.
func exchangeOwn(conn net.Conn, key uint16, body []byte) ([]byte, error) {
	const correlation, client = 1, "trimaran"
	req := make([]byte, 4, 64)
	req = binary.BigEndian.AppendUint16(req, key)
	req = binary.BigEndian.AppendUint16(req, 0)
	req = binary.BigEndian.AppendUint32(req, correlation)
	req = binary.BigEndian.AppendUint16(req, uint16(len(client)))
	req = append(req, client...)
	req = append(req, body...)
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
	answer, err := io.ReadAll(io.LimitReader(conn, int64(size)-4))
	if err == nil && len(answer) != int(size)-4 {
		err = io.ErrUnexpectedEOF
	}
	return answer, err
}

// ownBody takes the JSON out of the answer's body.
func ownBody(body []byte) ([]byte, error) {
	if len(body) < 6 {
		return nil, errors.New("the answer is too short")
	}
	if err := kerr.ErrorForCode(int16(binary.BigEndian.Uint16(body))); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(body[2:])
	if uint64(size) != uint64(len(body)-6) {
		return nil, fmt.Errorf("%d bytes announced, %d came", size, len(body)-6)
	}
	return body[6:], nil
}
