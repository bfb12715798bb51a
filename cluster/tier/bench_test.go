package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// benchTier is a tier over a store in memory, with its cache on the machine's disk, and the batches
// of a segment.
func benchTier(b *testing.B, cacheBytes int64) (t *Tier, batches []kafkaproto.Batch, size int64) {
	ctx, cancel := context.WithCancel(context.Background())
	t, err := Open(ctx, Config{Store: newMemStore(), ClusterID: func() string { return "c" }, FS: vfs.OS, Dir: b.TempDir() + "/tier", CacheBytes: cacheBytes})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cancel(); t.Close() })
	random := rand.NewChaCha8([32]byte{1})
	for next := int64(0); size < 64<<20; {
		var values []string
		for range 16 {
			value := make([]byte, 1000)
			_, _ = random.Read(value)
			values = append(values, string(value))
		}
		batch := prototest.Batch(values...)
		batch.Stamp(next, 1)
		whole, err := kafkaproto.ParseBatch(batch.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		next, size, batches = whole.Header().NextOffset(), size+int64(whole.Size()), append(batches, whole)
	}
	return t, batches, size
}

func (t *Tier) benchPut(batches []kafkaproto.Batch) (s fsm.TieredSegment, err error) {
	ctx := context.Background()
	u, err := t.Begin(ctx, testPartition, 0, 1)
	if err != nil {
		return s, err
	}
	u.Epoch(1, 0)
	next := fsm.Offset(0)
	for _, batch := range batches {
		next = fsm.Offset(batch.Header().NextOffset())
		if err := u.Add(ctx, batch, next); err != nil {
			return s, err
		}
	}
	return u.Finish(ctx, next, nil, 0)
}

// BenchmarkUpload puts 64 MiB into a store that takes no time: what it costs besides the store.
func BenchmarkUpload(b *testing.B) {
	t, batches, size := benchTier(b, 1<<30)
	b.SetBytes(size)
	store := t.Store.(*memStore)
	for b.Loop() {
		if _, err := t.benchPut(batches); err != nil {
			b.Fatal(err)
		}
		clear(store.objects)
	}
}

// BenchmarkRead reads 64 MiB from the start in steps of 1 MiB: with nothing in the cache, and with
// all of it there.
func BenchmarkRead(b *testing.B) {
	for _, cold := range []bool{true, false} {
		b.Run(fmt.Sprint("cold=", cold), func(b *testing.B) {
			t, batches, size := benchTier(b, 1<<30)
			s, err := t.benchPut(batches)
			if err != nil {
				b.Fatal(err)
			}
			memory := make([]byte, 0, 2<<20)
			b.SetBytes(size)
			for b.Loop() {
				for at := fsm.Offset(0); at < s.Next; {
					r, err := t.Read(context.Background(), testPartition, []fsm.TieredSegment{s}, at, 1<<20, func(int) []byte { return memory[:0] })
					if errors.Is(err, ErrLater) {
						time.Sleep(time.Millisecond)
						continue
					}
					if err != nil {
						b.Fatal(err)
					}
					at = r.End
				}
				for i := range int(s.Pieces) {
					if cold {
						t.cache.drop(pieceKey(testPartition, nameOf(s), i))
					}
				}
			}
		})
	}
}
