package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Clients never try again what they sent: a value that is in the log twice was put there by the
// cluster. Each goes to a node until something fails there, then to another.

const (
	producersPerPartition = 2
	requestLimit          = 6 * time.Second // longer than a gateway may hold a produce
	dialLimit             = 2 * time.Second
	pace                  = 15 * time.Millisecond // between two requests of a client
)

// Kafka's error codes that mean something to the checker.
const (
	outOfRange = 1
	notLeader  = 6
)

type clients struct {
	stop func()
}

// startClients runs producers, readers at the tail, readers of the end, and committers.
func startClients(w *world, h *history) *clients {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	n := uint64(0)
	run := func(loop func(*client)) {
		n++
		c := &client{w: w, h: h, ctx: ctx, dice: rand.New(rand.NewPCG(w.o.seed, 100+n)), number: int(n)}
		wg.Go(func() {
			defer c.hangUp()
			loop(c)
		})
	}
	for p := range int32(w.o.partitions) {
		for range producersPerPartition {
			run(func(c *client) { c.produce(p) })
		}
		run(func(c *client) { c.tail(p) })
		run(func(c *client) { c.probe(p) })
		run(func(c *client) { c.commit(p) })
	}
	return &clients{func() { cancel(); wg.Wait() }}
}

type client struct {
	w      *world
	h      *history
	ctx    context.Context
	dice   *rand.Rand
	number int

	at   *host
	wire *harness.Wire
}

func (c *client) hangUp() {
	if c.wire != nil {
		c.wire.Close()
		c.wire = nil
	}
}

// connected has a connection to some node; false: not now.
func (c *client) connected() bool {
	if c.wire == nil {
		hosts := c.w.list()
		c.at = hosts[c.dice.IntN(len(hosts))]
		conn, err := c.w.dial(c.at.client(), dialLimit)
		if err != nil {
			c.rest()
			return false
		}
		c.wire = harness.NewWire(conn)
	}
	c.wire.Conn.SetDeadline(time.Now().Add(requestLimit))
	return true
}

func (c *client) rest() { pause(c.ctx, pace+time.Duration(c.dice.Int64N(int64(pace)))) }

// failed looks at an error: a code from the cluster, which may be the node's own trouble, or a
// connection that is no good any more. Either way another node is tried next.
func (c *client) failed(err error) (code int16) {
	var said harness.ErrorCode
	if errors.As(err, &said) {
		code = int16(said)
	}
	c.hangUp()
	return code
}

func (c *client) produce(partition int32) {
	for n := 0; c.ctx.Err() == nil; n++ {
		if !c.connected() {
			continue
		}
		value := fmt.Sprintf("%d-%d-%d", partition, c.number, n)
		c.h.sent(partition, value)
		offset, err := c.wire.Produce(topic, partition, -1, value)
		switch {
		case err == nil:
			c.h.acknowledged(partition, value, offset, c.at.id)
		case c.failed(err) == notLeader:
			c.h.refused(partition, value, c.at.id)
		default:
			c.h.unknown(c.at.id)
		}
		c.rest()
	}
}

// tail reads from the start on, waits at the end, and goes on for ever.
func (c *client) tail(partition int32) {
	next := int64(0)
	for c.ctx.Err() == nil {
		if !c.connected() {
			continue
		}
		known := c.h.end(partition)
		high, set, err := c.wire.Fetch(topic, partition, next, 300, 1, 1<<20)
		if err != nil {
			if c.failed(err) == outOfRange {
				c.h.anomaly("offset-out-of-range", "partition %d: at %d, which was read up to, through %s; the end was known to be %d", partition, next, c.at.id, known)
			}
			c.rest()
			continue
		}
		entries, _, err := harness.Messages(set)
		if err != nil {
			c.h.anomaly("corrupt", "partition %d at %d through %s: %v", partition, next, c.at.id, err)
			c.hangUp()
			continue
		}
		if high < next {
			c.h.anomaly("nonmonotonic-high-watermark", "partition %d: %d is read up to, and %s says that the end is %d", partition, next, c.at.id, high)
		}
		for _, e := range entries {
			switch {
			case e.Offset < next:
				c.h.anomaly("nonmonotonic-poll", "partition %d: offset %d behind %d through %s", partition, e.Offset, next-1, c.at.id)
			case e.Offset > next:
				c.h.anomaly("int-poll-skip", "partition %d: offset %d behind %d through %s", partition, e.Offset, next-1, c.at.id)
			}
			c.h.read(partition, e.Offset, string(e.Value), c.at.id)
			next = e.Offset + 1
		}
		if c.dice.IntN(50) == 0 {
			c.hangUp() // to see other nodes, too
		}
	}
}

// probe asks for the latest offset, now here, now there, and reads at the end that is known.
func (c *client) probe(partition int32) {
	for c.ctx.Err() == nil {
		if c.dice.IntN(3) == 0 {
			c.hangUp()
		}
		if !c.connected() {
			continue
		}
		known := c.h.end(partition)
		if c.dice.IntN(2) == 0 {
			_, _, err := c.wire.Fetch(topic, partition, known, 0, 0, 1<<16)
			if err != nil && c.failed(err) == outOfRange {
				c.h.anomaly("offset-out-of-range", "partition %d: at the end %d, which was known before, through %s", partition, known, c.at.id)
			}
			c.rest()
			continue
		}
		offsets, err := c.wire.ListOffsets(topic, partition, -1, 1)
		switch {
		case err != nil:
			c.failed(err)
		case len(offsets) != 1:
			c.h.anomaly("no-latest", "partition %d through %s: %v", partition, c.at.id, offsets)
		default:
			if offsets[0] < known {
				c.h.anomaly("nonmonotonic-latest", "partition %d: the end was known to be %d, and then %s says %d", partition, known, c.at.id, offsets[0])
			}
			c.h.seen(partition, offsets[0])
		}
		c.rest()
	}
}

// commit commits one offset after the other to a group of its own and reads it back.
func (c *client) commit(partition int32) {
	group := fmt.Sprintf("group-%d", partition)
	commits, attempted := newCommits(), int64(-1)
	for c.ctx.Err() == nil {
		if c.dice.IntN(4) == 0 {
			c.hangUp()
		}
		if !c.connected() {
			continue
		}
		if c.dice.IntN(2) == 0 {
			attempted++
			err := commitOffset(c.wire, group, partition, attempted)
			commits.answered(attempted, err)
			if err != nil {
				c.failed(err)
			}
			c.rest()
			continue
		}
		got, err := fetchOffset(c.wire, group, partition)
		switch {
		case err != nil:
			c.failed(err)
		case !commits.fetched(got):
			c.h.anomaly("lost-commit", "%s: %d was acknowledged, %d sent last, and %s says %d", group, commits.acknowledged, attempted, c.at.id, got)
		}
		c.rest()
	}
}

const (
	offsetCommitKey = 8
	offsetFetchKey  = 9
)

// commitOffset is OffsetCommit, version 2, of a group without members.
func commitOffset(w *harness.Wire, group string, partition int32, offset int64) error {
	b := harness.Int32(harness.Str(nil, group), -1)
	b = harness.Int64(harness.Str(b, ""), -1)
	b = harness.Int32(harness.Str(harness.Int32(b, 1), topic), 1)
	b = harness.Str(harness.Int64(harness.Int32(b, partition), offset), "")
	answer, err := w.Do(offsetCommitKey, 2, b)
	if err != nil {
		return err
	}
	r := harness.Reader{B: answer}
	r.Int32()
	r.Str()
	r.Int32()
	r.Int32()
	code := r.Int16()
	if err := r.End(); err != nil {
		return err
	}
	if code != 0 {
		return harness.ErrorCode(code)
	}
	return nil
}

// fetchOffset is OffsetFetch, version 1.
func fetchOffset(w *harness.Wire, group string, partition int32) (int64, error) {
	b := harness.Int32(harness.Str(nil, group), 1)
	b = harness.Int32(harness.Int32(harness.Str(b, topic), 1), partition)
	answer, err := w.Do(offsetFetchKey, 1, b)
	if err != nil {
		return 0, err
	}
	r := harness.Reader{B: answer}
	r.Int32()
	r.Str()
	r.Int32()
	r.Int32()
	offset := r.Int64()
	r.Str()
	code := r.Int16()
	if err := r.End(); err != nil {
		return 0, err
	}
	if code != 0 {
		return 0, harness.ErrorCode(code)
	}
	return offset, nil
}

// readBack reads all of it through every node.
func (w *world) readBack(h *history, within time.Duration) error {
	deadline := time.Now().Add(within)
	for _, host := range w.list() {
		for p := range int32(w.o.partitions) {
			var entries []harness.Entry
			var last error
			err := harness.Eventually(time.Until(deadline), func() bool {
				conn, err := w.dial(host.client(), dialLimit)
				if err != nil {
					last = err
					return false
				}
				wire := harness.NewWire(conn)
				defer wire.Close()
				offsets, err := wire.ListOffsets(topic, p, -1, 1)
				if err == nil && len(offsets) == 1 {
					entries, err = wire.FetchAll(topic, p, offsets[0], time.Minute)
				}
				last = err
				return err == nil
			})
			if err != nil {
				return fmt.Errorf("partition %d cannot be read through %s: %w", p, host.id, last)
			}
			log := make([]string, len(entries))
			for i, e := range entries {
				if e.Offset != int64(i) {
					h.anomaly("int-poll-skip", "partition %d through %s: record %d has offset %d", p, host.id, i, e.Offset)
					break
				}
				log[i] = string(e.Value)
			}
			h.final(p, host.id, log)
		}
	}
	return nil
}
