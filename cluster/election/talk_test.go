package election_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// recorded is a connection that remembers what went over it.
type recorded struct {
	net.Conn
	mu       sync.Mutex
	out, inn bytes.Buffer
}

func (c *recorded) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Write(b[:n])
	return n, err
}

func (c *recorded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inn.Write(b[:n])
	return n, err
}

// frames reads what went one way: after the hello, whose length is in it, each frame's header but
// for its checksum, and the body where it is short.
func frames(t *testing.T, b []byte) (all []string) {
	t.Helper()
	last, times := "", 0
	b = b[6+int(binary.BigEndian.Uint16(b[4:]))+4:]
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint32(b))
		body := b[20 : 20+n]
		line := fmt.Sprintf("type %d kind %d id %d: %d bytes", b[4], b[5], binary.BigEndian.Uint64(b[8:]), n)
		if n > 0 && n < 100 {
			line += fmt.Sprintf(" %q", body)
		}
		if line == last {
			times++
			all[len(all)-1] = fmt.Sprintf("%s, %d times", line, times)
		} else {
			last, times = line, 1
			all = append(all, line)
		}
		b = b[20+n:]
	}
	return all
}

// TestTheTalkStaysAsItIs holds which frames go which way, on which connection and in which order,
// for each thing that is asked.
func TestTheTalkStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peertest.New()
		var mu sync.Mutex
		var conns []*recorded
		a := linkOn(t, n, "a", func(c *config) {
			dial := c.Dial
			c.PingInterval, c.PingTimeout = 40*time.Second, time.Hour
			c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
				nc, err := dial(ctx, addr)
				if err != nil {
					return nil, err
				}
				r := &recorded{Conn: nc}
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, r)
				return r, nil
			}
		})
		b := linkOn(t, n, "b", func(c *config) {
			c.PingInterval, c.PingTimeout = time.Hour, time.Hour
			c.Handler = func(ctx context.Context, from string, kind uint8, p []byte) []byte {
				if kind == 9 {
					<-ctx.Done()
				}
				return append([]byte(from+":"), p...)
			}
		})
		defer closeAll(a, b)
		ta, tb := a.Transport("g"), b.Transport("g")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go serve(ctx, tb, func(r raft.RPC) {
			switch req := r.Command.(type) {
			case *raft.RequestVoteRequest:
				r.Respond(&raft.RequestVoteResponse{Term: req.Term, Granted: true}, nil)
			case *raft.AppendEntriesRequest:
				r.Respond(&raft.AppendEntriesResponse{Term: req.Term, LastLog: 8, Success: true}, nil)
			case *raft.InstallSnapshotRequest:
				time.Sleep(1500 * time.Millisecond)
				_, err := io.Copy(io.Discard, r.Reader)
				r.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: err == nil}, err)
			default:
				r.Respond(nil, fmt.Errorf("refused here"))
			}
		})
		if _, err := a.Call(ctx, "b", 7, []byte("x"), []byte("y")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		short, end := context.WithTimeout(ctx, time.Second)
		_, _ = a.Call(short, "b", 9, []byte("endless"))
		end()
		time.Sleep(time.Second)
		if _, err := a.Call(ctx, "b", 7, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		if err := ta.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 3}, new(raft.RequestVoteResponse)); err != nil {
			t.Fatal(err)
		}
		if err := ta.TimeoutNow("b", "b", &raft.TimeoutNowRequest{}, new(raft.TimeoutNowResponse)); err == nil {
			t.Error("what failed there is no error")
		}
		if err := a.Transport("unknown").RequestVote("b", "b", &raft.RequestVoteRequest{Term: 3}, new(raft.RequestVoteResponse)); err == nil {
			t.Error("a group that is not there is no error")
		}
		p, err := ta.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{10, 100_000, 9 << 20} {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 3, Entries: entries(1, 2, size)}, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
			<-p.Consumer()
		}
		_ = p.Close()
		if err := ta.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 3, Entries: entries(1, 2, 10)}, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
		const size = 3<<20 + 1
		if err := ta.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{Term: 3, Size: size}, new(raft.InstallSnapshotResponse), bytes.NewReader(make([]byte, size))); err != nil {
			t.Fatal(err)
		}
		if err := ta.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{Term: 3, Size: size}, new(raft.InstallSnapshotResponse), bytes.NewReader(make([]byte, 10))); err == nil {
			t.Error("half of a snapshot is no error")
		}
		time.Sleep(time.Minute) // a ping
		var got []string
		mu.Lock()
		defer mu.Unlock()
		for i, c := range conns {
			c.mu.Lock()
			got = append(got, fmt.Sprintf("connection %d, out:", i+1))
			got = append(got, frames(t, c.out.Bytes())...)
			got = append(got, fmt.Sprintf("connection %d, in:", i+1))
			got = append(got, frames(t, c.inn.Bytes())...)
			c.mu.Unlock()
		}
		if text := strings.Join(got, "\n") + "\n"; text != theTalk {
			t.Errorf("the talk is\n%s\nand was\n%s", text, theTalk)
		}
	})
}

const theTalk = `connection 1, out:
type 3 kind 7 id 1: 2 bytes "xy"
type 3 kind 9 id 2: 7 bytes "endless"
type 4 kind 0 id 2: 0 bytes
type 6 kind 1 id 4: 39 bytes "\x01g\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
type 6 kind 3 id 5: 13 bytes "\x01g\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
type 6 kind 1 id 6: 45 bytes "\aunknown\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
type 6 kind 0 id 7: 132 bytes
type 6 kind 0 id 11: 132 bytes
type 1 kind 0 id 1: 0 bytes
connection 1, in:
type 5 kind 0 id 1: 4 bytes "a:xy"
type 5 kind 0 id 4: 21 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x01"
type 5 kind 1 id 5: 13 bytes "\rrefused here"
type 5 kind 2 id 6: 32 bytes "\x05no such group on the other node"
type 5 kind 0 id 7: 29 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\b\x01\x00"
type 5 kind 0 id 11: 29 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\b\x01\x00"
type 2 kind 0 id 1: 0 bytes
connection 2, out:
type 3 kind 7 id 3: 100000 bytes
type 6 kind 0 id 8: 200116 bytes
type 6 kind 0 id 9: 9437268 bytes
type 6 kind 0 id 10: 9437268 bytes
type 6 kind 2 id 12: 64 bytes "\x01g\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x000\x00\x01"
type 7 kind 0 id 12: 262144 bytes, 12 times
type 7 kind 0 id 12: 1 bytes "\x00"
type 6 kind 2 id 13: 64 bytes "\x01g\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x000\x00\x01"
type 7 kind 0 id 13: 0 bytes
type 1 kind 0 id 1: 0 bytes
connection 2, in:
type 5 kind 0 id 3: 100002 bytes
type 5 kind 0 id 8: 29 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\b\x01\x00"
type 5 kind 0 id 9: 29 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\b\x01\x00"
type 5 kind 0 id 10: 29 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\b\x01\x00"
type 9 kind 0 id 12: 0 bytes
type 5 kind 0 id 12: 20 bytes "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x01"
type 9 kind 0 id 13: 0 bytes
type 5 kind 1 id 13: 67 bytes "/snapshot stream is over: the sender gave it up\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00"
type 2 kind 0 id 1: 0 bytes
`

// serve answers a raft group's requests with f until ctx ends, as Raft's main loop would.
func serve(ctx context.Context, tr raft.Transport, f func(raft.RPC)) {
	for {
		select {
		case r := <-tr.Consumer():
			f(r)
		case <-ctx.Done():
			return
		}
	}
}

func entries(from, count, size int) []*raft.Log {
	var out []*raft.Log
	for i := range count {
		out = append(out, &raft.Log{Index: uint64(from + i), Term: 1, Data: bytes.Repeat([]byte{byte(from + i)}, size)})
	}
	return out
}
