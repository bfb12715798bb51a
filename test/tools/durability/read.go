package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// reader reads one partition over a connection to one address, with Fetch and
// ListOffsets of version 0, and connects again when it must.
type reader struct {
	addr      string
	topic     string
	partition int32
	timeout   time.Duration

	c *harness.Wire
}

func (r *reader) close() {
	if r.c != nil {
		r.c.Close()
		r.c = nil
	}
}

// ask has f ask over a connection, which is given up after any error but one that the cluster
// answered.
func (r *reader) ask(f func(w *harness.Wire) error) error {
	if r.c == nil {
		c, err := connect(r.addr, r.timeout)
		if err != nil {
			return err
		}
		r.c = c
	}
	err := r.c.Conn.SetDeadline(time.Now().Add(r.timeout))
	if err == nil {
		err = f(r.c)
	}
	if code := harness.ErrorCode(0); err != nil && !errors.As(err, &code) {
		r.close()
	}
	return err
}

// end asks for the offset behind the last record.
func (r *reader) end() (int64, error) {
	var offsets []int64
	err := r.ask(func(w *harness.Wire) (err error) {
		offsets, err = w.ListOffsets(r.topic, r.partition, -1, 1)
		return err
	})
	if err != nil {
		return 0, err
	}
	if len(offsets) != 1 {
		return 0, fmt.Errorf("%d offsets came, want 1", len(offsets))
	}
	return offsets[0], nil
}

// outOfRange is Kafka's code for an offset that is not in the log.
const outOfRange = harness.ErrorCode(1)

// fetch asks for messages from an offset on. With wait it is a long poll. The
// first message it gives is at that offset; an answer without messages is none.
func (r *reader) fetch(from int64, wait time.Duration) ([]harness.Entry, error) {
	for limit := int32(1 << 20); ; limit *= 4 {
		var set []byte
		err := r.ask(func(w *harness.Wire) (err error) {
			_, set, err = w.Fetch(r.topic, r.partition, from, int32(wait.Milliseconds()), 1, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		messages, err := parseMessages(set)
		if err != nil {
			return nil, err
		}
		// A set may begin below the offset asked for, where messages were compressed together.
		for len(messages) > 0 && messages[0].Offset < from {
			messages = messages[1:]
		}
		if len(messages) > 0 || len(set) == 0 || limit >= maxAnswer/4 {
			return messages, nil
		}
	}
}

// readAll reads a partition from offset 0 up to end. Errors are tried again until
// ctx ends; an offset that is skipped or doubled is an error at once.
func (r *reader) readAll(ctx context.Context, end int64, size int) ([]harness.Record, error) {
	log := make([]harness.Record, 0, end)
	for int64(len(log)) < end {
		messages, err := r.fetch(int64(len(log)), 0)
		if err == nil && len(messages) == 0 {
			err = fmt.Errorf("no message at offset %d, and the log ends at %d", len(log), end)
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return log, err
			case <-time.After(50 * time.Millisecond):
				continue
			}
		}
		for _, m := range messages {
			if m.Offset != int64(len(log)) {
				return log, fmt.Errorf("a message with offset %d came where %d is due", m.Offset, len(log))
			}
			log = append(log, harness.RecordOf(m, size))
		}
	}
	return log[:end], nil
}

// tail follows a partition while it is written, as a consumer does, and keeps
// what it saw. A log that goes backwards shows as an offset out of range.
type tail struct {
	reader
	size     int
	seen     []harness.Record
	backward int // times that the log seemed to end before what was read already
	broken   error
}

func (t *tail) run(ctx context.Context) {
	defer t.close()
	for ctx.Err() == nil && t.broken == nil {
		messages, err := t.fetch(int64(len(t.seen)), 500*time.Millisecond)
		if err != nil {
			if errors.Is(err, outOfRange) {
				t.backward++
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		for _, m := range messages {
			if m.Offset != int64(len(t.seen)) {
				t.broken = fmt.Errorf("partition %d: a message with offset %d came where %d is due", t.partition, m.Offset, len(t.seen))
				break
			}
			t.seen = append(t.seen, harness.RecordOf(m, t.size))
		}
	}
}
