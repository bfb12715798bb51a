package link

import (
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/internal/ticks"
)

// keepalive tries every connection in turn and ends those that are silent.
func (l *Link) keepalive() {
	tick := ticks.New(l.cfg.PingInterval)
	defer tick.Stop()
	last := l.Now()
	for seq := uint64(1); ; seq++ {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		now := l.Now()
		// When this process itself was stopped, silence says nothing about others: give them one
		// more round.
		paused := now-last > int64(l.cfg.PingTimeout)/2
		last = now
		for _, c := range l.conns.all(false) {
			c.check(now, seq, paused)
		}
	}
}

// check is one round of the keepalive. The dialing side pings and both sides listen. A bulk
// connection whose bytes are being taken is alive even if the pong stands behind them.
func (c *conn) check(now int64, seq uint64, paused bool) {
	heard := c.lastRead.Load()
	if c.class == Bulk {
		heard = max(heard, c.lastWrite.Load())
	}
	if silent := time.Duration(now - heard); silent > c.base.cfg.PingTimeout && !paused {
		c.close(fmt.Errorf("%w: nothing heard for %v", ErrBroken, silent.Round(time.Millisecond)))
		return
	}
	if c.dialed {
		c.sendUrgent(newMessage(framePing, 0, seq))
	}
}
