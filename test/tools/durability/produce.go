package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/test/harness"
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
	ledger    *harness.Ledger
	random    *rand.Rand

	over time.Time // when run's ctx was seen to have ended
}

// run writes until ctx ends; patience is how long it then goes on to have the
// last batch acknowledged.
func (p *producer) run(ctx context.Context, patience time.Duration) {
	var c *harness.Wire
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for seq := int32(0); ctx.Err() == nil; {
		n := int32(1 + p.random.IntN(p.batch))
		for attempt := int32(0); ; attempt++ {
			ids := make([]harness.Attempt, n)
			for i := range ids {
				ids[i] = harness.Attempt{Producer: p.number, Seq: seq + int32(i), Try: attempt}
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
				if code := harness.ErrorCode(0); !errors.As(err, &code) {
					c.Close()
					c = nil
				}
			}
			if !p.wait(ctx, patience) {
				p.ledger.GaveUp(int(n))
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
func (p *producer) send(c *harness.Wire, ids []harness.Attempt) error {
	var set []byte
	size := 0
	for n, i := range ids {
		key, value := []byte(i.Key()), []byte(i.Value(p.valueSize))
		size += len(key) + len(value)
		set = harness.Message(set, int64(n), 0, key, value)
	}
	p.ledger.Sent(ids)
	// The cluster keeps the request's own timeout; a little more is for the way.
	err := c.Conn.SetDeadline(time.Now().Add(p.timeout + 2*time.Second))
	base := int64(-1)
	if err == nil {
		base, err = c.ProduceSet(p.topic, p.partition, -1, p.timeout, set)
	}
	if err != nil {
		p.ledger.Unknown(ids, reason(err))
		return err
	}
	p.ledger.Acknowledged(p.partition, ids, base, size, time.Now())
	return nil
}

// reason names an error in the report: few kinds, no addresses.
func reason(err error) string {
	if code := harness.ErrorCode(0); errors.As(err, &code) {
		if e := kerr.TypedErrorForCode(int16(code)); e != nil {
			return e.Message
		}
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
