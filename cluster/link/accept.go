package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// acceptLoop takes connections until the listener is closed.
func (l *Link) acceptLoop() {
	var delay time.Duration
	for {
		nc, err := l.cfg.Listener.Accept()
		if err != nil {
			if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, for instance: others would be turned away as well if this one
			// gave up.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.log.Error("peer listener cannot accept", "error", err)
			select {
			case <-time.After(delay):
				continue
			case <-l.ctx.Done():
				return
			}
		}
		delay = 0
		select {
		case l.handshakes <- struct{}{}:
			if oldest := l.strangers.enter(nc); oldest != nil {
				l.stats.refused.Add(1)
				_ = oldest.Close()
			}
			l.tasks.wg.Go(func() {
				defer func() { <-l.handshakes }()
				defer l.strangers.leave(nc)
				l.welcome(nc)
			})
		default:
			l.stats.refused.Add(1)
			_ = nc.Close()
		}
	}
}

// welcome shakes hands with a stranger and starts its connection.
func (l *Link) welcome(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(handshakeTimeout))
	stranger := nc
	stop := context.AfterFunc(l.ctx, func() { _ = stranger.Close() })
	defer stop()
	body, err := readHello(nc)
	if err != nil {
		if !errors.Is(err, io.EOF) { // nothing at all is a port scan or a health check
			l.turnAway(nc, "", err)
		}
		_ = nc.Close()
		return
	}
	h, err := decodeHello(body)
	if err != nil {
		l.turnAway(nc, "", err)
		_ = nc.Close()
		return
	}
	ours := helloAnswer{identity: l.cfg.Self, clusterID: l.cfg.ClusterID(), boot: l.boot}
	nc, err = proven(nc, h.identity)
	var version uint16
	if err == nil {
		version, err = l.judge(h, ours.clusterID)
	}
	if err == nil && l.conns.count() >= l.cfg.MaxConnections {
		err = ErrBusy
	}
	var c *conn
	if err == nil {
		p := l.peers.named(h.identity)
		c = newConn(l.base, nc, h.class, &p.heard)
		err = p.admit(h, version, c)
	}
	if err != nil {
		ours.reason, ours.text = reasonOf(err), err.Error()
		_ = writeHello(nc, ours.encode())
		_ = nc.Close()
		if c != nil {
			c.cancel(err)
		}
		if !errors.Is(err, errStale) {
			l.turnAway(nc, h.identity, err)
		}
		return
	}
	ours.version = version
	if err = writeHello(nc, ours.encode()); err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		c.close(err)
		return
	}
	l.stats.accepted.Add(1)
	c.heard.Store(l.Now())
	c.start()
}

func (l *Link) turnAway(nc net.Conn, identity string, err error) {
	l.stats.refused.Add(1)
	if l.logLimit.Allow() {
		l.log.Warn("peer connection refused", "remote", nc.RemoteAddr(), "node", identity, "error", err)
	}
}

// judge decides whether the stranger may come in, and with which version.
func (l *Link) judge(h hello, clusterID string) (uint16, error) {
	version, ok := chooseVersion(h.versionMin, h.versionMax)
	switch {
	case l.ctx.Err() != nil:
		return 0, ErrStopping
	case !ok:
		return 0, fmt.Errorf("%w: it speaks %d to %d, %s speaks %d to %d", ErrVersionMismatch, h.versionMin, h.versionMax, l.cfg.Self, versionMin, versionMax)
	case h.clusterID != "" && clusterID != "" && h.clusterID != clusterID:
		return 0, fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, h.clusterID, clusterID)
	case h.target != "" && h.target != l.cfg.Self:
		return 0, fmt.Errorf("%w: %q was dialed, %q is here", ErrIdentityMismatch, h.target, l.cfg.Self)
	case h.class > single:
		return 0, fmt.Errorf("%w: %s", ErrProtocol, h.class)
	}
	return version, nil
}
