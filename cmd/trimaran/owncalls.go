package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ownCalls asks the cluster by an API of its own again and again. Connections, which may have cost
// a login, are kept.
type ownCalls struct {
	b *brokers

	mu   sync.Mutex // guards idle and shut; nothing is done under it but to put and to take
	idle []net.Conn
	shut bool
}

const ownRetryPause = 200 * time.Millisecond

// ask asks brokers in turn until one answers or ctx ends. The same request may be made twice.
func (o *ownCalls) ask(ctx context.Context, key uint16, request []byte) ([]byte, error) {
	var last error
	for {
		for at := range o.b.inTurn(len(o.b.list)) {
			answer, err := o.askOne(ctx, o.b.list[at], key, request)
			if err == nil {
				o.b.answered.Store(int64(at))
				return answer, nil
			}
			if e := (*kerr.Error)(nil); errors.As(err, &e) && (!e.Retriable || isDenial(e)) {
				return nil, denial(err)
			}
			if last == nil || !timedOut(err) {
				last = err
			}
		}
		select {
		case <-ctx.Done():
			return nil, o.b.unreachable(last)
		case <-time.After(ownRetryPause):
		}
	}
}

// askOne asks one broker, with a connection that is there or a new one.
func (o *ownCalls) askOne(ctx context.Context, one broker, key uint16, request []byte) ([]byte, error) {
	turn, cancel := o.b.turn(ctx)
	defer cancel()
	if conn := o.take(); conn != nil {
		if answer, err := o.askOver(turn, conn, key, request); err == nil || turn.Err() != nil {
			return answer, err
		}
	}
	conn, err := o.b.dial(turn, "tcp", one.addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(turn, func() { conn.Close() })
	host, _, _ := net.SplitHostPort(one.addr)
	err = o.b.logIn(turn, conn, host)
	if !stop() || err != nil {
		conn.Close()
		return nil, errors.Join(err, turn.Err())
	}
	return o.askOver(turn, conn, key, request)
}

// askOver asks over a connection, which is kept if it is good for more.
func (o *ownCalls) askOver(ctx context.Context, conn net.Conn, key uint16, request []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	body, err := exchangeOwn(conn, key, request)
	if !stop() || err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	o.put(conn)
	return ownBody(body)
}

func (o *ownCalls) take() net.Conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.idle)
	if n == 0 {
		return nil
	}
	conn := o.idle[n-1]
	o.idle = o.idle[:n-1]
	return conn
}

func (o *ownCalls) put(conn net.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut {
		conn.Close()
		return
	}
	o.idle = append(o.idle, conn)
}

// close closes the connections that nobody uses now, and those in use when they come back.
func (o *ownCalls) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
	for _, conn := range o.idle {
		conn.Close()
	}
	o.idle = nil
}
