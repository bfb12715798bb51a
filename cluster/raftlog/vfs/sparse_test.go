package vfs

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSparseIsAsBytesAre does the same to contents and to plain bytes. A copy stays what it was
// when either goes on.
func TestSparseIsAsBytesAre(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 8))
		contents, plain := make([]sparse, 1), make([][]byte, 1)
		most := 1 + random.IntN(6*page)
		for range 200 {
			i := random.IntN(len(contents))
			c, at := &contents[i], random.IntN(most)
			if random.IntN(3) == 0 {
				at = at / page * page
			}
			switch random.IntN(6) {
			case 0:
				c.resize(int64(at))
				plain[i] = append(plain[i], make([]byte, max(0, at-len(plain[i])))...)[:at:at]
			case 1:
				if copied := c.clone(); len(contents) < 4 {
					contents, plain = append(contents, copied), append(plain, slices.Clone(plain[i]))
				} else {
					other := random.IntN(len(contents))
					contents[other], plain[other] = copied, slices.Clone(plain[i])
				}
			default:
				b := bytes.Repeat([]byte{byte(random.IntN(256) * random.IntN(2))}, random.IntN(1+most-at))
				c.write(b, int64(at))
				plain[i] = append(plain[i], make([]byte, max(0, at+len(b)-len(plain[i])))...)
				copy(plain[i][at:], b)
			}
			for i := range contents {
				at, got := random.IntN(most), bytes.Repeat([]byte{0xee}, most)
				n := contents[i].read(got, int64(at))
				if want := plain[i][min(at, len(plain[i])):]; contents[i].size != int64(len(plain[i])) || !bytes.Equal(got[:n], want) {
					t.Fatalf("seed %d: of %d bytes %d are there from %d on, want %d of %d, or others", seed, contents[i].size, n, at, len(want), len(plain[i]))
				}
			}
		}
	}
}

// What is allocated ahead and not written takes no memory, and a sync takes none.
func TestZerosTakeNoMemory(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Allocate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("head"), 3*page); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	node := m.root["/f"]
	if len(node.data.pages) != 4 || node.synced.page(3*page) != node.data.page(3*page) || node.synced.size != 1<<40 {
		t.Errorf("%d pages, and the synced one is another", len(node.data.pages))
	}
}
