package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reader reads one partition over a connection to one address, with Fetch and
// ListOffsets of version 0, and connects again when it must.
type reader struct {
	addr      string
	topic     string
	partition int32
	timeout   time.Duration

	c *conn
}

func (r *reader) close() {
	if r.c != nil {
		r.c.Close()
		r.c = nil
	}
}

func (r *reader) ask(req kmsg.Request) (kmsg.Response, error) {
	if r.c == nil {
		c, err := connect(r.addr, r.timeout)
		if err != nil {
			return nil, err
		}
		r.c = c
	}
	resp, err := r.c.request(req, r.timeout)
	if err != nil {
		r.close()
	}
	return resp, err
}

// end asks for the offset behind the last record.
func (r *reader) end() (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 0, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = r.topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.MaxNumOffsets = r.partition, -1, 1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	answer, err := r.ask(req)
	if err != nil {
		return 0, err
	}
	resp := answer.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("the answer is not for one partition")
	}
	part := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
		return 0, err
	}
	if len(part.OldStyleOffsets) != 1 {
		return 0, fmt.Errorf("%d offsets came, want 1", len(part.OldStyleOffsets))
	}
	return part.OldStyleOffsets[0], nil
}

// fetch asks for messages from an offset on. With wait it is a long poll. The
// first message it gives is at that offset; an answer without messages is none.
func (r *reader) fetch(from int64, wait time.Duration) ([]message, error) {
	for limit := int32(1 << 20); ; limit *= 4 {
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.ReplicaID = 0, -1
		req.MaxWaitMillis, req.MinBytes = int32(wait.Milliseconds()), 1
		t := kmsg.NewFetchRequestTopic()
		t.Topic = r.topic
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = r.partition, from, limit
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		answer, err := r.ask(req)
		if err != nil {
			return nil, err
		}
		resp := answer.(*kmsg.FetchResponse)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return nil, errors.New("the answer is not for one partition")
		}
		part := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
			return nil, err
		}
		messages, err := parseMessages(part.RecordBatches)
		if err != nil {
			return nil, err
		}
		// A set may begin below the offset asked for, where messages were compressed together.
		for len(messages) > 0 && messages[0].offset < from {
			messages = messages[1:]
		}
		if len(messages) > 0 || len(part.RecordBatches) == 0 || limit >= maxAnswer/4 {
			return messages, nil
		}
	}
}

// entry is what one gateway gave for one offset. The index in a log is the offset.
type entry struct {
	id      id
	foreign bool // not what any producer wrote
}

// take turns a message into an entry. size is the producers' value size.
func take(m message, size int) entry {
	i, ok := parseID(m.key)
	if !ok || string(m.value) != i.value(size) {
		return entry{foreign: true}
	}
	return entry{id: i}
}

// readAll reads a partition from offset 0 up to end. Errors are tried again until
// ctx ends; an offset that is skipped or doubled is an error at once.
func (r *reader) readAll(ctx context.Context, end int64, size int) ([]entry, error) {
	log := make([]entry, 0, end)
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
			if m.offset != int64(len(log)) {
				return log, fmt.Errorf("a message with offset %d came where %d is due", m.offset, len(log))
			}
			log = append(log, take(m, size))
		}
	}
	return log[:end], nil
}

// tail follows a partition while it is written, as a consumer does, and keeps
// what it saw. A log that goes backwards shows as an offset out of range.
type tail struct {
	reader
	size     int
	seen     []entry
	backward int // times that the log seemed to end before what was read already
	broken   error
}

func (t *tail) run(ctx context.Context) {
	defer t.close()
	for ctx.Err() == nil && t.broken == nil {
		messages, err := t.fetch(int64(len(t.seen)), 500*time.Millisecond)
		if err != nil {
			if errors.Is(err, kerr.OffsetOutOfRange) {
				t.backward++
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		for _, m := range messages {
			if m.offset != int64(len(t.seen)) {
				t.broken = fmt.Errorf("partition %d: a message with offset %d came where %d is due", t.partition, m.offset, len(t.seen))
				break
			}
			t.seen = append(t.seen, take(m, t.size))
		}
	}
}
