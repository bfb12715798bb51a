package main

import (
	"crypto/tls"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAGatewayThatComesBackIsFound(t *testing.T) {
	g := newFakeGateway(t)
	addr, _ := startProxy(t, g)
	client := connect(t, addr)
	for i := range int32(3) {
		write(t, client, asked(apiMetadata, i))
		gw := g.accept(t)
		gw.want(asked(apiMetadata, i))
		gw.send(answer(i))
		wantRead(t, client, answer(i))
		gw.die()
		gw.wantGone()
	}
}

func TestAnIdleClientOutlivesAllGateways(t *testing.T) {
	g := newFakeGateway(t)
	const dialTimeout = 500 * time.Millisecond
	p, addr, _ := runProxy(t, []string{"--dial-timeout=" + dialTimeout.String()}, g)
	p.waitUp(t, 1)
	client := connect(t, addr)
	write(t, client, asked(apiMetadata, 1))
	gw := g.accept(t)
	gw.want(asked(apiMetadata, 1))
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	why := "away"
	g.refuse.Store(&why)
	gw.die()
	g.dropWatchers()
	p.waitUp(t, 0)
	p.waitRefused(t)
	<-time.After(dialTimeout) // longer than a request would wait
	g.refuse.Store(nil)
	p.waitUp(t, 1)
	write(t, client, asked(apiMetadata, 2))
	gw = g.accept(t)
	gw.want(asked(apiMetadata, 2))
	gw.send(answer(2))
	wantRead(t, client, answer(2))
}

// waitRefused waits until watchers know that the gateway does not come back at once.
func (p *proxy) waitRefused(t *testing.T) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.gateways.mu.Lock()
		known, changed := p.gateways.list[0].told == "", p.gateways.changed
		p.gateways.mu.Unlock()
		if !known {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatal("the gateway is still thought to be there")
		}
	}
}

func TestARequestDoesNotWaitForEverForAGateway(t *testing.T) {
	g := newFakeGateway(t)
	why := "no room"
	g.refuse.Store(&why)
	_, addr, _ := runProxy(t, []string{"--dial-timeout=50ms"}, g)
	client := connect(t, addr)
	write(t, client, asked(apiMetadata, 1))
	wantClosed(t, client)
}

// A gateway that stands still keeps its sockets. Its watcher notices, and all
// sessions move at once, though their own connections look alive.
func TestAGatewayThatStandsStillIsLeft(t *testing.T) {
	still, other := newFakeGateway(t), newFakeGateway(t)
	p, addr, _ := runProxy(t, []string{"--gateway-timeout=400ms"}, still, other)
	p.waitUp(t, 2)
	client := connect(t, addr)
	write(t, client, asked(apiFetch, 1))
	gw, goesOn := either(t, still, other)
	stopped := still
	if goesOn == still {
		stopped = other
	}
	gw.want(asked(apiFetch, 1))
	stopped.standStill()
	moved := goesOn.accept(t)
	moved.want(asked(apiFetch, 1))
	moved.send(answer(1))
	wantRead(t, client, answer(1))
}

func TestManyLossesAtOnceAreOnePieceOfNews(t *testing.T) {
	g := newFakeGateway(t)
	p, addr, _ := runProxy(t, nil, g)
	p.waitUp(t, 1)
	const clients = 8
	for i := range clients {
		client := connect(t, addr)
		write(t, client, asked(apiMetadata, int32(i)))
		gw := g.accept(t)
		gw.want(asked(apiMetadata, int32(i)))
		gw.send(answer(int32(i)))
		wantRead(t, client, answer(int32(i)))
	}
	list := p.gateways.list[0]
	list.all.mu.Lock()
	age := list.age
	list.all.mu.Unlock()
	for range 100 {
		list.doubt(age)
	}
	p.waitUp(t, 1)
	list.all.mu.Lock()
	defer list.all.mu.Unlock()
	if list.age != age+1 {
		t.Errorf("the gateway was looked at %d times", list.age-age)
	}
}

func TestSessionsSpreadOverGateways(t *testing.T) {
	gs := newGateways([]string{"ws://a:1", "ws://b:1", "ws://c:1"}, newProxyDialer(), func() *tls.Config { return nil }, time.Second, discard())
	for _, g := range gs.list {
		g.reached()
	}
	count := map[string]int{}
	for range 30 {
		g, _ := gs.pick(nil)
		count[g.url]++
	}
	for url, n := range count {
		if n != 10 {
			t.Errorf("%s has %d of 30 sessions", url, n)
		}
	}
	avoid := gs.list[1]
	for range 10 {
		avoid.leave() // the emptiest of all
	}
	for range 5 {
		if g, _ := gs.pick(avoid); g.gateway == avoid {
			t.Error("the gateway that was just lost is picked though there are others")
		}
	}
	gs.list[0].suspect()
	gs.list[2].suspect()
	if g, _ := gs.pick(avoid); g.gateway != avoid {
		t.Error("the only gateway is not picked")
	}
	avoid.suspect()
	if g, changed := gs.pick(nil); g.gateway != nil || changed == nil {
		t.Error("a gateway is picked though none is up")
	}
}

func TestBackoff(t *testing.T) {
	for failures, most := range []time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		for range 100 {
			if d := backoff(failures); d < most/2 || d > most {
				t.Fatalf("after %d failures: %v, want %v to %v", failures, d, most/2, most)
			}
		}
	}
	for _, failures := range []int{7, 100, 1 << 40} {
		if d := backoff(failures); d < backoffMost/2 || d > backoffMost {
			t.Errorf("after %d failures: %v", failures, d)
		}
	}
}

func TestWhatALogShowsOfAGateway(t *testing.T) {
	if got := redacted("wss://user:secret@host:1/"); strings.Contains(got, "secret") {
		t.Error(got)
	}
}

// Each connection to a gateway takes certificates and CAs as their files are then.
func TestEachConnectionFollowsTheFiles(t *testing.T) {
	g := newFakeGateway(t)
	var read atomic.Int32
	_, addr, stop := runProxyWith(t, nil, func(p *proxy) {
		p.gateways.eachTLS = func() *tls.Config {
			read.Add(1)
			return nil
		}
	}, g)
	defer stop()
	client := connect(t, addr)
	for i := range int32(3) {
		before := read.Load()
		write(t, client, asked(apiMetadata, i))
		gw := g.accept(t)
		gw.send(answer(i))
		wantRead(t, client, answer(i))
		if read.Load() == before {
			t.Error("a connection by what was read before")
		}
		gw.die()
		gw.wantGone()
	}
}
