package main

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestBuffersHaveRoomAndAreNotMuchLarger(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 16, smallMessage, smallMessage + 1, 4095, 4096, 4097, 16_500, 1 << 15, 1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 20} {
		b := newBuffer(n)
		if len(b) != 0 || cap(b) < n || cap(b) >= 2*n && n > 1 || n <= smallMessage && cap(b) > n {
			t.Errorf("for %d bytes: %d, with room for %d", n, len(b), cap(b))
		}
		giveBack(b[:n])
	}
	giveBack(nil)
	giveBack(make([]byte, 5000)) // not one of these
	if b := newBuffer(5000); cap(b) != 1<<13 {
		t.Errorf("room for %d bytes is kept as another", cap(b))
	}
}

// Requests and answers pass as they are, in their order, while their buffers are used again and
// gateways are lost in the middle: what is asked again elsewhere has not been overwritten.
func TestWhatPassesIsNotOverwritten(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	a, b := newFakeGateway(t), newFakeGateway(t)
	addr, _ := startProxy(t, a, b)
	client := connect(t, addr)
	body := func(i int32) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8), 1}, int(i*7919%20_000)) }
	const all, inFlight = 400, 16
	var gw *gatewayConn
	other := a
	sent, got := int32(0), int32(0) // by the client, at gw
	for answered := int32(0); answered < all; {
		for ; sent < all && sent < answered+inFlight; sent++ {
			write(t, client, asked(apiFetch, sent, body(sent)...))
		}
		if gw == nil {
			if answered == 0 {
				gw, other = either(t, a, b)
			} else {
				next := other
				gw = next.accept(t)
				if other = a; next == a {
					other = b
				}
			}
			got = answered
		}
		for until := min(sent, got+1+rng.Int32N(inFlight)); got < until; got++ {
			gw.want(asked(apiFetch, got, body(got)...))
		}
		for until := min(got, answered+1+rng.Int32N(inFlight)); answered < until; answered++ {
			gw.send(answer(answered, body(answered+1)...))
			wantRead(t, client, answer(answered, body(answered+1)...))
		}
		if rng.IntN(12) == 0 && answered < all {
			gw.die()
			gw = nil
		}
	}
}
