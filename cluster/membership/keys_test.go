package membership

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"
)

func keysOf(names ...int) (keys [][]byte) {
	for _, n := range names {
		keys = append(keys, bytes.Repeat([]byte{byte(n)}, 16))
	}
	return keys
}

// TestKeysAreReplaced from any list by any other: the first encrypts, all are there, no other is.
func TestKeysAreReplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfNDistinct(rapid.IntRange(1, 6), 1, 6, rapid.ID[int])
		first := keysOf(list.Draw(t, "first")...)
		ring, err := memberlist.NewKeyring(first, first[0])
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			want := keysOf(list.Draw(t, "keys")...)
			if err := replaceKeys(ring, want); err != nil {
				t.Fatal(err)
			}
			got := slices.Clone(ring.GetKeys())
			if !bytes.Equal(got[0], want[0]) {
				t.Fatalf("it encrypts with %v, want %v", got[0], want[0])
			}
			slices.SortFunc(got, bytes.Compare)
			slices.SortFunc(want, bytes.Compare)
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("keys %v, want %v", got, want)
			}
		}
	})
}

// gossips starts one that knows the others before it.
func gossips(t *testing.T, id string, plain Plaintext, keys [][]byte, others ...*Gossip) *Gossip {
	t.Helper()
	var join []string
	for _, g := range others {
		join = append(join, g.Addr())
	}
	g, err := Start(Config{
		Self:     Member{Identity: id + ".0000abcd", NodeID: id, Incarnation: "0000abcd"},
		BindAddr: "127.0.0.1:0", Join: join, Keys: keys, Plaintext: plain,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// together waits until each knows so many members, and one of them hears what another says anew.
func together(t *testing.T, step string, all ...*Gossip) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, g := range all {
		self := g.self
		self.Zone = step
		if err := g.Update(self); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	for _, g := range all {
		for {
			said := ""
			heard := 0
			for _, m := range g.Members() {
				said += fmt.Sprintf(" %s: %q", m.NodeID, m.Zone)
				if m.Zone == step {
					heard++
				}
			}
			if heard == len(all) && len(g.Members()) == len(all) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s knows%s", step, g.self.NodeID, said)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// TestAKeyGivesWayToAnother in the three steps of the runbook, while all hear each other. The old
// key is good for nothing then.
func TestAKeyGivesWayToAnother(t *testing.T) {
	t.Parallel()
	a := gossips(t, "a", NoPlaintext, keysOf(1))
	b := gossips(t, "b", NoPlaintext, keysOf(1), a)
	c := gossips(t, "c", NoPlaintext, keysOf(1), a)
	together(t, "one key", a, b, c)
	for _, step := range [][]int{{1, 2}, {2, 1}, {2}} {
		for _, g := range []*Gossip{a, b, c} {
			if err := g.SetKeys(keysOf(step...)); err != nil {
				t.Fatal(err)
			}
			together(t, fmt.Sprint(step, g.self.NodeID), a, b, c)
		}
	}
	stranger := gossips(t, "d", NoPlaintext, keysOf(1), a, b, c)
	fresh := gossips(t, "e", NoPlaintext, keysOf(2), a)
	together(t, "with a new one", a, b, c, fresh)
	if known := stranger.Members(); len(known) != 1 {
		t.Errorf("with the old key: %v", known)
	}
	for _, bad := range [][][]byte{nil, {[]byte("short")}, keysOf(1, 2, 3, 4, 5, 6, 7, 8, 9)} {
		if err := a.SetKeys(bad); err == nil {
			t.Errorf("%d keys are taken", len(bad))
		}
	}
	if err := gossips(t, "f", NoPlaintext, nil).SetKeys(keysOf(1)); err == nil {
		t.Error("keys where there were none")
	}
}

// TestFromPlaintextToKeys goes node by node, as rolling restarts do.
func TestFromPlaintextToKeys(t *testing.T) {
	t.Parallel()
	var all []*Gossip
	for i, id := range []string{"a", "b", "c"} {
		all = append(all, gossips(t, id, NoPlaintext, nil, all[:i]...))
	}
	together(t, "plaintext", all...)
	for _, plain := range []Plaintext{SpeakPlaintext, HearPlaintext, NoPlaintext} {
		for i, id := range []string{"a", "b", "c"} {
			others := append(slices.Clone(all[:i]), all[i+1:]...)
			_ = all[i].Leave(time.Second) // an error: not all were told in time, and find out
			_ = all[i].Close()
			all[i] = gossips(t, id, plain, keysOf(1), others...)
			together(t, fmt.Sprint(plain, id), all...)
		}
	}
	stranger := gossips(t, "d", NoPlaintext, nil, all...)
	together(t, "in the end", all...)
	if known := stranger.Members(); len(known) != 1 {
		t.Errorf("without a key: %v", known)
	}
}
