package main

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// late is the network of one producer, in which requests of a transaction stay somewhere and arrive
// when the next one has begun: as what a client sent over a connection that broke, and sent again.
// The request arrives in time too, unless it is held back.
type late struct {
	w *world

	mu   sync.Mutex // guards what follows
	dice *rand.Rand
	held bool // requests to produce do not arrive in time
}

func (w *world) late(seed uint64) *late {
	return &late{w: w, dice: rand.New(rand.NewPCG(w.seed, seed))}
}

// hold has the producer's records arrive late only, from now on.
func (l *late) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

func (l *late) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: conn, l: l, addr: addr}, nil
}

// lateConn is a connection of the producer. One goroutine writes to it.
type lateConn struct {
	net.Conn
	l    *late
	addr string
	part []byte // of a request that is not written whole
	dead bool   // what is written is not sent any more
}

// mayBeLate says which requests are sent again. Of version 1 those to the coordinator are not: they
// do not say for which transaction they are.
func (l *late) mayBeLate(key kmsg.Key) bool {
	switch key {
	case kmsg.Produce:
		return true
	case kmsg.EndTxn, kmsg.TxnOffsetCommit:
		return !l.w.old
	}
	return false
}

func (c *lateConn) Write(b []byte) (int, error) {
	c.part = append(c.part, b...)
	for len(c.part) >= 6 {
		size := 4 + int(binary.BigEndian.Uint32(c.part))
		if len(c.part) < size {
			break
		}
		frame := c.part[:size:size]
		c.part = c.part[size:]
		key := kmsg.Key(binary.BigEndian.Uint16(frame[4:]))
		c.l.mu.Lock()
		held := c.l.held && key == kmsg.Produce
		copied := c.l.mayBeLate(key) && c.l.dice.IntN(6) == 0
		after := time.Duration(c.l.dice.Int64N(int64(lateBy)))
		if c.l.dice.IntN(2) == 0 {
			after /= 20
		}
		c.l.mu.Unlock()
		if held || copied {
			c.l.w.lateSent(key, held)
			time.AfterFunc(after, func() { c.l.deliver(c.addr, frame) })
		}
		c.dead = c.dead || held
	}
	if c.dead {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// lateBy is by how much a request is late at most.
const lateBy = 3 * time.Second

// deliver sends a request. Of version 1 the end of its connection comes with it: that is how a
// request of a client that asked again is known there, since it may have the epoch and the sequence
// number of one of the next transaction. Of version 2 it stays for the answer, which is nobody's
// any more.
func (l *late) deliver(addr string, frame []byte) {
	conn, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write(frame); err == nil && !l.w.old {
		_, _ = conn.Read(make([]byte, 1024))
	}
}

// lateSent counts.
func (w *world) lateSent(key kmsg.Key, held bool) {
	what := key.Name() + " again"
	if held {
		what = key.Name() + " for the first time"
	}
	w.lateMu.Lock()
	defer w.lateMu.Unlock()
	if w.lates == nil {
		w.lates = map[string]int{}
	}
	w.lates[what]++
}
