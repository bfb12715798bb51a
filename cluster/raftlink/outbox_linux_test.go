package raftlink_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// What goes ahead leaves when who stores it says so, before Raft asks for it.
func TestWhatGoesAheadIsHeld(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := func(string) (string, bool) { return listener.Addr().String(), true }
	// A ping takes along what is held.
	const never = time.Hour
	b := startWith(t, link.Config{Self: "b", Listener: listener, Resolve: to, PingInterval: never, PingTimeout: never}, raftlink.Config{}, nil)
	var outbox link.Outbox
	a := startWith(t, link.Config{Self: "a", Outbox: &outbox, Resolve: to, PingInterval: never, PingTimeout: never}, raftlink.Config{}, nil)

	got := make(chan *raft.AppendEntriesRequest, 8)
	go serve(t.Context(), b.Transport("g"), func(r raft.RPC) {
		got <- r.Command.(*raft.AppendEntriesRequest)
		accept(r)
	})
	group := a.rafts.Open("g", nil)
	group.Attach(&leads{state: raft.Leader, term: 1})
	p, err := group.AppendEntriesPipeline("b", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	first := &raft.AppendEntriesRequest{Term: 1, Entries: entries(1, 1, 10)}
	if _, err := p.AppendEntries(first, new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	<-p.Consumer() // and what Raft asks for itself waits for no outbox
	<-got

	const size = 50_000
	before := a.Stats().BytesOut
	group.Ahead(entries(2, 1, size))
	if a.rafts.Stats().Ahead != 1 {
		t.Fatal("it did not go ahead")
	}
	for range 10_000 { // a writing goroutine that was woken mostly has written by then
		runtime.Gosched()
	}
	if n := a.Stats().BytesOut - before; n >= size {
		t.Errorf("%d bytes left by themselves", n)
	}
	outbox.Write()
	select {
	case req := <-got:
		if req.Entries[0].Index != 2 {
			t.Errorf("the follower got %v", req)
		}
	case <-time.After(time.Minute):
		t.Error("it does not arrive")
	}
}
