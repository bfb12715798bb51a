package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

func TestAcksAreFoundInEveryVersion(t *testing.T) {
	for name, test := range map[string]struct {
		version int16
		body    []byte
	}{
		"v0":          {0, []byte{0, 1, 'c', 0, 0}},
		"v2 null id":  {2, []byte{0xff, 0xff, 0, 0}},
		"v3":          {3, []byte{0, 1, 'c', 0xff, 0xff, 0, 0}},
		"v8 with txn": {8, []byte{0, 1, 'c', 0, 2, 't', 'x', 0, 0}},
		"v9 no tags":  {9, []byte{0, 1, 'c', 0, 0, 0, 0}},
		"v9 tag, txn": {9, []byte{0, 1, 'c', 1, 5, 2, 9, 9, 3, 't', 'x', 0, 0}},
	} {
		acks, transactional, ok := produceHead(test.body, test.version)
		if !ok || acks != 0 || transactional != strings.Contains(name, "txn") {
			t.Errorf("%s: acks %d, transactional %v, %v", name, acks, transactional, ok)
		}
		for cut := range test.body {
			if acks, _, ok := produceHead(test.body[:cut], test.version); ok {
				t.Errorf("%s cut at %d gives acks %d", name, cut, acks)
			}
		}
	}
}

// Of InitProducerId it is known in every version whether it has a transactional id.
func TestTransactionalIdsAreFound(t *testing.T) {
	for _, version := range []int16{0, 1, 2, 4, 5} {
		for id, want := range map[*string]bool{nil: false, kmsg.StringPtr("t"): true, kmsg.StringPtr(""): true} {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.Version, req.TransactionalID = version, id
			frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("client")).AppendRequest(nil, req, 7)
			if r, err := parseRequest(frame); err != nil || r.transactional != want {
				t.Errorf("v%d with %v: %+v, %v", version, id, r, err)
			}
			for cut := 12; cut < len(frame)-13; cut++ { // behind it are 12 bytes at least, and tags
				if r, err := parseRequest(frame[:cut]); err == nil && r.transactional && !want {
					t.Errorf("v%d cut at %d is transactional", version, cut)
				}
			}
		}
	}
}

func TestRequestsArriveWholeFromAnyPieces(t *testing.T) {
	memory := newBudget(1 << 30)
	rapid.Check(t, func(t *rapid.T) {
		bodies := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 5000), 1, 5).Draw(t, "bodies")
		size := rapid.IntRange(1, 3000).Draw(t, "piece")
		large := rapid.IntRange(0, 300_000).Draw(t, "large")
		near, far := net.Pipe()
		defer near.Close()
		var frames [][]byte
		for i, body := range append(bodies, make([]byte, large)) {
			frames = append(frames, asked(apiFetch, int32(i), body...))
		}
		go func() {
			defer far.Close()
			for rest := bytes.Join(frames, nil); len(rest) > 0; {
				n, err := far.Write(rest[:min(size, len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		c := newClient(near, 1<<20, memory)
		for i, frame := range frames {
			r, err := c.readRequest(context.Background())
			if err != nil || !bytes.Equal(r.frame, frame) {
				t.Fatalf("request %d: %v", i, err)
			}
			memory.Release(len(r.frame))
		}
		if _, err := c.readRequest(context.Background()); !errors.Is(err, io.EOF) {
			t.Fatalf("the end: %v", err)
		}
		if held := memory.held.Load(); held != 0 {
			t.Fatalf("%d bytes are held", held)
		}
	})
}

func TestMemoryGrowsWithWhatArrives(t *testing.T) {
	near, far := net.Pipe()
	memory := newBudget(1 << 30)
	c := newClient(near, 100<<20, memory)
	ended := make(chan error, 1)
	go func() {
		_, err := c.readRequest(context.Background())
		ended <- err
	}()
	// of 96 MiB
	if _, err := far.Write(append([]byte{6, 0, 0, 0}, make([]byte, 200<<10)...)); err != nil {
		t.Fatal(err)
	}
	if held := memory.held.Load(); held > 1<<20 {
		t.Errorf("%d bytes are held for 200 KiB", held)
	}
	c.interrupt()
	if err := <-ended; err == nil {
		t.Error("the read went on")
	}
	if held := memory.held.Load(); held != 0 {
		t.Errorf("%d bytes are held after the end", held)
	}
	near.Close()
	far.Close()
}

func TestMemoryIsBoundedOverAllClients(t *testing.T) {
	b := newBudget(10_000)
	ctx := context.Background()
	if err := b.Acquire(ctx, 6000); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := b.Acquire(short, 6000); err == nil {
		t.Fatal("more than there is")
	}
	if err := b.Acquire(ctx, smallMessage); err != nil {
		t.Fatal("a small message waits")
	}
	b.Release(smallMessage)
	b.Release(6000)
	if err := b.Acquire(ctx, 1<<30); err != nil { // counts as all
		t.Fatal(err)
	}
	b.Release(1 << 30)
	if held := b.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(produce(1, 0))
	f.Add(asked(apiFetch, 1))
	f.Add(message(0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'c', 1, 5, 2, 9, 9, 3, 't', 'x', 0, 0))
	f.Add([]byte{0, 0, 0, 9, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		if r, err := parseRequest(stream); err == nil && !r.answered && r.key != apiProduce {
			t.Fatal("only a produce may expect no answer")
		}
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			defer far.Close()
			_, _ = far.Write(stream)
		}()
		memory := newBudget(1 << 20)
		c := newClient(near, 1<<16, memory)
		read := 0
		for {
			r, err := c.readRequest(context.Background())
			if err != nil {
				break
			}
			if !bytes.Equal(r.frame, stream[read:read+len(r.frame)]) {
				t.Fatal("a request is not what came")
			}
			read += len(r.frame)
			memory.Release(len(r.frame))
		}
		if held := memory.held.Load(); held != 0 {
			t.Fatalf("%d bytes are held", held)
		}
	})
}
