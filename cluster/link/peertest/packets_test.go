package peertest

import (
	"fmt"
	"io"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestGossipInVirtualTime holds that memberlist works on the network, notices who is cut off, and
// meets it again.
func TestGossipInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		var lists []*memberlist.Memberlist
		// A probe of memberlist's outlives its shutdown by its timeout, and the bubble's time ends
		// with this function.
		defer time.Sleep(time.Minute)
		for i := range 3 {
			addr := fmt.Sprintf("10.0.0.%d:7946", i+1)
			transport, err := n.Gossip(fmt.Sprint("n", i+1), addr)
			if err != nil {
				t.Fatal(err)
			}
			c := memberlist.DefaultLANConfig()
			c.Name, c.Transport, c.Logger = fmt.Sprint("n", i+1), transport, log.New(io.Discard, "", 0)
			c.BindAddr, c.BindPort, c.AdvertisePort = fmt.Sprintf("10.0.0.%d", i+1), 7946, 7946
			list, err := memberlist.Create(c)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := list.Shutdown(); err != nil {
					t.Error(err)
				}
			}()
			lists = append(lists, list)
		}
		alive := func(want int) {
			t.Helper()
			for range 1200 {
				if lists[0].NumMembers() == want {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Fatalf("%d members after two minutes, want %d", lists[0].NumMembers(), want)
		}
		for _, l := range lists[1:] {
			if _, err := l.Join([]string{"10.0.0.1:7946"}); err != nil {
				t.Fatal(err)
			}
		}
		alive(3)
		n.Isolate("n3", "n1", "n2")
		alive(2)
		n.HealAll()
		if _, err := lists[2].Join([]string{"10.0.0.1:7946"}); err != nil {
			t.Fatal(err)
		}
		alive(3)
	})
}
