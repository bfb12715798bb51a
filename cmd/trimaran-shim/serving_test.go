package main

import (
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// waitServing waits until so many gateways are known to be up and to serve.
func (p *proxy) waitServing(t *testing.T, want int) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		p.gateways.mu.Lock()
		serving, changed := 0, p.gateways.changed
		for _, g := range p.gateways.list {
			if g.up && g.serves {
				serving++
			}
		}
		p.gateways.mu.Unlock()
		if serving == want {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%d gateways serve, want %d", serving, want)
		}
	}
}

func startServing(t *testing.T, words ...string) (p *proxy, addr string, gateways []*fakeGateway) {
	t.Helper()
	serving := 0
	for _, word := range words {
		g := newFakeGateway(t)
		g.says(word)
		gateways = append(gateways, g)
		if word != shim.NotServing {
			serving++
		}
	}
	p, addr, _ = runProxy(t, nil, gateways...)
	p.waitUp(t, len(words))
	p.waitServing(t, serving)
	return p, addr, gateways
}

// A node that has just started, or is cut off, takes connections and serves nobody.
func TestClientsComeToGatewaysThatServe(t *testing.T) {
	_, addr, gs := startServing(t, shim.NotServing, "", shim.NotServing)
	for i := range int32(8) {
		client := connect(t, addr)
		write(t, client, asked(apiMetadata, i))
		gw := gs[1].accept(t)
		gw.want(asked(apiMetadata, i))
		gw.send(answer(i))
		wantRead(t, client, answer(i))
	}
}

func TestClientsLeaveAGatewayThatServesNoLonger(t *testing.T) {
	p, addr, gs := startServing(t, shim.Serving, shim.NotServing)
	idle, reading := connect(t, addr), connect(t, addr)
	write(t, idle, produce(1, -1))
	gw := gs[0].accept(t)
	gw.want(produce(1, -1))
	gw.send(answer(1))
	wantRead(t, idle, answer(1))
	write(t, reading, asked(apiFetch, 2), produce(3, -1))
	second := gs[0].accept(t)
	second.want(asked(apiFetch, 2), produce(3, -1))

	gs[1].says(shim.Serving)
	p.waitServing(t, 2)
	gs[0].says(shim.NotServing)
	gw.wantGone() // the idle one has left
	// The other waits for what may have changed something, and asks nothing more meanwhile.
	write(t, reading, asked(apiFetch, 4))
	second.send(answer(2))
	second.send(answer(3))
	wantRead(t, reading, answer(2), answer(3))
	second.wantGone()
	third := gs[1].accept(t)
	third.want(asked(apiFetch, 4))
	third.send(answer(4))
	wantRead(t, reading, answer(4))
	write(t, idle, produce(5, -1))
	fourth := gs[1].accept(t)
	fourth.want(produce(5, -1))
	fourth.send(answer(5))
	wantRead(t, idle, answer(5))
}

// What only reads is asked elsewhere at once.
func TestReadsAreAskedAgainWhereTheyAreServed(t *testing.T) {
	p, addr, gs := startServing(t, shim.Serving, shim.NotServing)
	client := connect(t, addr)
	write(t, client, asked(apiFetch, 1))
	gs[0].accept(t).want(asked(apiFetch, 1))
	gs[1].says(shim.Serving)
	p.waitServing(t, 2)
	gs[0].says(shim.NotServing)
	gw := gs[1].accept(t)
	gw.want(asked(apiFetch, 1))
	gw.send(answer(1))
	wantRead(t, client, answer(1))
}

// A produce whose answer does not come in a moment has an unknown fate, as at a gateway that dies.
func TestAProduceThatIsStuckWhereNobodyIsServedEndsItsClient(t *testing.T) {
	p, addr, gs := startServing(t, shim.Serving, shim.NotServing)
	client := connect(t, addr)
	write(t, client, produce(1, -1))
	gs[0].accept(t).want(produce(1, -1))
	gs[1].says(shim.Serving)
	p.waitServing(t, 2)
	gs[0].says(shim.NotServing)
	wantClosed(t, client)
}

// Where nobody serves, a gateway can at least say so to clients in their own words.
func TestWhereNoGatewayServesClientsStayWhereTheyAre(t *testing.T) {
	p, addr, gs := startServing(t, shim.Serving)
	client := connect(t, addr)
	write(t, client, asked(apiMetadata, 1))
	gw := gs[0].accept(t)
	gw.want(asked(apiMetadata, 1))
	gs[0].says(shim.NotServing)
	p.waitServing(t, 0)
	if p.gateways.ready() {
		t.Error("the shim is ready, and no gateway serves")
	}
	gw.send(answer(1))
	wantRead(t, client, answer(1))
	write(t, client, asked(apiMetadata, 2))
	gw.want(asked(apiMetadata, 2))
	gw.send(answer(2))
	wantRead(t, client, answer(2))
}
