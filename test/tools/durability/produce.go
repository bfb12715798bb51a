package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producer writes numbered values to one partition, one request at a time, over
// a connection of its own. Whatever is not acknowledged is written again until it
// is, or until the time for that is over too.
type producer struct {
	number    int32
	addr      string
	topic     string
	partition int32
	valueSize int
	batch     int           // most messages in a request
	pause     time.Duration // between requests
	timeout   time.Duration // for one request
	ledger    *ledger
	random    *rand.Rand

	over time.Time // when run's ctx was seen to have ended
}

// run writes until ctx ends; patience is how long it then goes on to have the
// last batch acknowledged.
func (p *producer) run(ctx context.Context, patience time.Duration) {
	var c *conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for seq := int32(0); ctx.Err() == nil; {
		n := int32(1 + p.random.IntN(p.batch))
		for attempt := int32(0); ; attempt++ {
			ids := make([]id, n)
			for i := range ids {
				ids[i] = id{p.number, seq + int32(i), attempt}
			}
			var err error
			if c == nil {
				if c, err = connect(p.addr, p.timeout); err != nil {
					// Nothing was sent: not an attempt.
					attempt--
				}
			}
			if err == nil {
				if err = p.send(c, ids); err == nil {
					break
				}
				// An error answer leaves the connection in order, anything else does not.
				if e := (*kerr.Error)(nil); !errors.As(err, &e) {
					c.Close()
					c = nil
				}
			}
			if !p.wait(ctx, patience) {
				p.ledger.giveUp(int(n))
				return
			}
		}
		seq += n
		if p.pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(p.pause):
			}
		}
	}
}

// wait waits a little before another attempt; false when it is too late for one.
func (p *producer) wait(ctx context.Context, patience time.Duration) bool {
	if ctx.Err() != nil && p.over.IsZero() {
		p.over = time.Now()
	}
	if !p.over.IsZero() && time.Since(p.over) >= patience {
		return false
	}
	time.Sleep(time.Duration(20+p.random.IntN(60)) * time.Millisecond)
	return true
}

// send writes one batch and tells the ledger what came of it.
func (p *producer) send(c *conn, ids []id) error {
	var set []byte
	size := 0
	for n, i := range ids {
		m := message{offset: int64(n), key: []byte(i.key()), value: []byte(i.value(p.valueSize))}
		size += len(m.key) + len(m.value)
		set = appendMessage(set, m)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = 0, -1, int32(p.timeout.Milliseconds())
	t := kmsg.NewProduceRequestTopic()
	t.Topic = p.topic
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = p.partition, set
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)

	p.ledger.attempt(ids)
	// The cluster keeps the request's own timeout; a little more is for the way.
	answer, err := c.request(req, p.timeout+2*time.Second)
	base := int64(-1)
	if err == nil {
		base, err = producedAt(answer.(*kmsg.ProduceResponse), p.topic, p.partition)
	}
	if err != nil {
		p.ledger.unknownFate(ids, reason(err))
		return err
	}
	p.ledger.acknowledge(p.partition, ids, base, size, time.Now())
	return nil
}

// producedAt takes the one base offset out of a Produce answer.
func producedAt(resp *kmsg.ProduceResponse, topic string, partition int32) (int64, error) {
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("the answer is not for one partition")
	}
	part := resp.Topics[0].Partitions[0]
	if resp.Topics[0].Topic != topic || part.Partition != partition {
		return 0, fmt.Errorf("the answer is for %s-%d", resp.Topics[0].Topic, part.Partition)
	}
	if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
		return 0, err
	}
	if part.BaseOffset < 0 {
		return 0, fmt.Errorf("acknowledged at offset %d", part.BaseOffset)
	}
	return part.BaseOffset, nil
}

// reason names an error in the report: few kinds, no addresses.
func reason(err error) string {
	if e := (*kerr.Error)(nil); errors.As(err, &e) {
		return e.Message
	}
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), strings.Contains(err.Error(), "use of closed"):
		return "connection broke"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return err.Error()
}
