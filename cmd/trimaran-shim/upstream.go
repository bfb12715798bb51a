package main

import (
	"context"
	"sync"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// upstream is one connection to a gateway, with a goroutine that writes what the connection does
// not take at once. It only passes things on: the session decides, and reads.
type upstream struct {
	conn    *shim.Conn
	gateway *gateway
	age     int // of what was known of the gateway when it was picked
	// dead ends when the gateway as a whole is taken for dead.
	dead context.Context
	// away is closed when the gateway does not serve and another one does.
	away <-chan struct{}

	out    chan *request // one at a time
	events chan event
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// event is what comes from the writer.
type event struct {
	wrote *request // the writer is done with it
	// writeErr: the gateway has not got it whole and never will. It is
	// the last event of the writer.
	writeErr error
}

func newUpstream(conn *shim.Conn, p picked) *upstream {
	up := &upstream{conn: conn, gateway: p.gateway, age: p.age, dead: p.dead, away: p.away, out: make(chan *request, 1), events: make(chan event)}
	up.ctx, up.cancel = context.WithCancel(context.Background())
	up.done.Go(up.write)
	return up
}

func (up *upstream) write() {
	for {
		select {
		case r := <-up.out:
			err := up.conn.WriteMessage(r.frame)
			if !up.tell(event{wrote: r, writeErr: err}) || err != nil {
				return
			}
		case <-up.ctx.Done():
			return
		}
	}
}

func (up *upstream) tell(e event) bool {
	select {
	case up.events <- e:
		return true
	case <-up.ctx.Done():
		return false
	}
}

// close ends the connection in an orderly way, which takes a moment where the
// gateway does not answer.
func (up *upstream) close() {
	up.conn.Close()
	up.cancel()
	up.done.Wait()
	up.gateway.leave()
}
