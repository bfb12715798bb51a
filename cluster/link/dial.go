package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// dialHello dials addr and shakes hands. h needs class, generation and target;
// the rest is filled in. It gives what the other side answered.
func (b *base) dialHello(ctx context.Context, addr string, h hello) (net.Conn, helloAnswer, error) {
	b.stats.dials.Add(1)
	nc, a, err := b.dialHelloOnce(ctx, addr, h)
	if err != nil {
		b.stats.dialsFailed.Add(1)
	}
	return nc, a, err
}

func (b *base) dialHelloOnce(ctx context.Context, addr string, h hello) (net.Conn, helloAnswer, error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialed, err := b.cfg.Dial(dctx, addr)
	if err != nil {
		return nil, helloAnswer{}, err
	}
	// The handshake ends with the context, too.
	stop := context.AfterFunc(ctx, func() { _ = dialed.Close() })
	nc := dialed
	a, err := b.shake(nc, h)
	var other *ClusterMismatch
	if err == nil || errors.As(err, &other) {
		// What is said of a cluster counts, too: see ClusterMismatch.
		_, secured := nc.(Secured)
		settled, perr := proven(nc, a.identity)
		switch {
		case perr != nil:
			err = perr
		case err != nil:
			other.Proven = secured
		default:
			nc = settled
		}
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, helloAnswer{}, err
	}
	return nc, a, nil
}

func (b *base) shake(nc net.Conn, h hello) (a helloAnswer, err error) {
	h.versionMin, h.versionMax = versionMin, versionMax
	h.boot, h.identity, h.clusterID = b.boot, b.cfg.Self, b.cfg.ClusterID()
	if err := nc.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return a, err
	}
	if err := writeHello(nc, h.encode()); err != nil {
		return a, err
	}
	body, err := readHello(nc)
	if err != nil {
		return a, fmt.Errorf("handshake: %w", err)
	}
	a, err = decodeHelloAnswer(body)
	if err != nil {
		return a, fmt.Errorf("handshake: %w", err)
	}
	if a.reason == reasonCluster {
		return a, &ClusterMismatch{Theirs: a.clusterID, err: refusal(a.reason, []byte(a.text))}
	}
	if a.reason != reasonNone {
		return a, refusal(a.reason, []byte(a.text))
	}
	if a.version < versionMin || a.version > versionMax {
		return a, fmt.Errorf("%w: it chose version %d", ErrVersionMismatch, a.version)
	}
	if h.clusterID != "" && a.clusterID != "" && h.clusterID != a.clusterID {
		return a, &ClusterMismatch{Theirs: a.clusterID, err: fmt.Errorf("%w: %q, not %q", ErrClusterMismatch, a.clusterID, h.clusterID)}
	}
	if h.target != "" && a.identity != h.target {
		return a, fmt.Errorf("%w: %q, not %q", ErrIdentityMismatch, a.identity, h.target)
	}
	return a, nc.SetDeadline(time.Time{})
}

// isRefused says whether nobody listens at the address that was dialed.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
