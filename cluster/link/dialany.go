package link

import (
	"context"
	"net"
	"slices"
	"time"
)

const (
	// headStart is what an address has before the next one is tried as well.
	headStart = 250 * time.Millisecond
	// maxAddresses bounds the addresses that are tried for one connection.
	maxAddresses = 5
)

// addresses are where the node may be, the likeliest first: where it was reached last or is said to
// be, then the others. None: no address is known.
func (b *base) addresses(identity string) (addrs []string) {
	if addr, ok := b.cfg.Resolve(identity); ok {
		addrs = append(addrs, addr)
	}
	if b.cfg.Elsewhere != nil {
		for _, addr := range b.cfg.Elsewhere(identity) {
			if len(addrs) < maxAddresses && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// tried is what came of one address.
type tried struct {
	nc   net.Conn
	a    helloAnswer
	addr string
	err  error
}

// dialAny is dialHello for a node that is at one of the addresses. Each has a head start before the
// next, and the first at which the node itself answers is taken. The error is that of an address
// where something may be, if there is one, so that one that refuses connections says nothing of
// the others.
func (b *base) dialAny(ctx context.Context, addrs []string, h hello) (net.Conn, helloAnswer, string, error) {
	if len(addrs) == 1 {
		nc, a, err := b.dialHello(ctx, addrs[0], h)
		return nc, a, addrs[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan tried, len(addrs))
	begun, ended := 0, 0
	var won, failed *tried
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := timer.C
		if won != nil || begun == len(addrs) {
			if ended == begun {
				break
			}
			next = nil
		}
		select {
		case <-next:
			addr := addrs[begun]
			begun++
			timer.Reset(headStart)
			go func() {
				nc, a, err := b.dialHello(ctx, addr, h)
				results <- tried{nc, a, addr, err}
			}()
		case r := <-results:
			ended++
			switch {
			case r.err != nil:
				if failed == nil || isRefused(failed.err) && !isRefused(r.err) {
					failed = &r
				}
				timer.Reset(0)
			case won != nil:
				_ = r.nc.Close()
			default:
				won = &r
				cancel() // dialHello ends with it, and gives no connection any more
			}
		}
	}
	if won != nil {
		return won.nc, won.a, won.addr, nil
	}
	return nil, helloAnswer{}, failed.addr, failed.err
}
