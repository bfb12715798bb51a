package tier

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
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

// BenchmarkUpload puts 64 MiB into a store in memory, and measures beside it what that store takes
// for as many bytes, and what SHA-256 takes of them: an upload less the store is what it costs
// besides the store. All are in ms of a processor for each MB (10^6 bytes).
func BenchmarkUpload(b *testing.B) {
	t, batches, size := benchTier(b, 1<<30)
	store := t.Store.(*memStore)
	b.Run("upload", func(b *testing.B) {
		cpuPerMB(b, size, func() error {
			_, err := t.benchPut(batches)
			// Whose store it is has to stay: without that it would be taken for another one.
			for key := range store.objects {
				if key != claimKey {
					delete(store.objects, key)
				}
			}
			return err
		})
	})
	piece := make([]byte, defaultPiece)
	b.Run("store", func(b *testing.B) {
		cpuPerMB(b, size, func() error {
			ctx := context.Background()
			for put := int64(0); put < size; put += int64(len(piece)) {
				key := fmt.Sprint("piece-", put)
				if err := store.Put(ctx, key, piece); err != nil {
					return err
				}
				if _, err := store.Get(ctx, key, int64(len(piece))); err != nil {
					return err
				}
				delete(store.objects, key)
			}
			return nil
		})
	})
	b.Run("sha256", func(b *testing.B) {
		cpuPerMB(b, size, func() error {
			for summed := int64(0); summed < size; summed += int64(len(piece)) {
				_ = sha256.Sum256(piece)
			}
			return nil
		})
	})
}

// cpuPerMB runs what handles so many bytes, and reports what the process spent on it, in all of its
// goroutines and in the garbage collector.
func cpuPerMB(b *testing.B, size int64, run func() error) {
	b.SetBytes(size)
	began := cpu(b)
	for b.Loop() {
		if err := run(); err != nil {
			b.Fatal(err)
		}
	}
	spent := cpu(b) - began
	b.ReportMetric(spent.Seconds()*1e3/(float64(size)*float64(b.N)/1e6), "cpu-ms/MB")
}

// cpu is what the process has spent of processors.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
						t.cache.drop(pieceKey(testPartition, nameOf(s), i), nil)
					}
				}
			}
		})
	}
}
