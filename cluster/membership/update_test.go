package membership

import (
	"testing"
	"time"
)

// TestAnUpdateEndsWhenItsNewsAreDropped: memberlist drops what a node says of itself when it has
// just refuted a suspicion, or leaves, and then never says that it was sent.
func TestAnUpdateEndsWhenItsNewsAreDropped(t *testing.T) {
	t.Parallel()
	open := func(id string, join ...string) *Gossip {
		g, err := Start(Config{Self: Member{Identity: id + ".0000abcd", NodeID: id, Incarnation: "0000abcd"}, BindAddr: "127.0.0.1:0", Join: join, Keys: [][]byte{[]byte("0123456789abcdef")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	a := open("a")
	b := open("b", a.Addr())
	for len(a.Members()) < 2 || len(b.Members()) < 2 {
		select {
		case <-a.Changed():
		case <-b.Changed():
		case <-time.After(30 * time.Second):
			t.Fatal("they do not meet")
		}
	}
	if err := a.list.Leave(time.Second); err != nil {
		t.Fatal(err)
	}
	self := a.self
	self.ClusterID = "news"
	ended := make(chan error, 1)
	go func() { ended <- a.Update(self) }()
	select {
	case err := <-ended:
		t.Logf("it says %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}
