package faults

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// Connections that have up to 64 requests in flight, without producer ids, to both partitions of a
// topic at once, with messages that are refused and large ones in between, while the nodes that
// lead are killed and stopped. Of a connection whatever is in the log is there once, in the order
// in which it was sent, where the answer said; and not what the answer said surely not to be there.
// STORM_SECONDS and STORM_SEED are as for TestKillStorm.
func TestWhatIsInFlightKeepsItsOrder(t *testing.T) {
	t.Parallel()
	lasts, seed := fromEnv(t, "STORM_SECONDS", 4), fromEnv(t, "STORM_SEED", rand.Uint64()>>1)
	t.Logf("STORM_SEED=%d STORM_SECONDS=%d", seed, lasts)
	c := harness.New(t, harness.Options{})
	create(t, c, "lines", linePartitions)
	f := &flight{told: map[sentAs]int64{}, over: make(chan struct{})}
	for i, window := range []int{64, 64, 5, 64} {
		addr, acks := c.ShimAddr(), int16(-1)
		if i < 3 {
			addr = c.Node(i + 1).Addr()
		}
		if i == 1 {
			acks = 1
		}
		f.all.Go(func() { f.produce(addr, window, acks, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	f.all.Go(func() { f.produce(c.Node(1).Addr(), 64, 0, rand.New(rand.NewPCG(seed, 9))) })
	stop := sync.OnceFunc(func() { close(f.over); f.all.Wait() })
	defer stop()
	s := &storm{t: t, nodes: c.Nodes, dice: rand.New(rand.NewPCG(seed, 10)), began: time.Now()}
	for time.Since(s.began) < time.Duration(lasts)*time.Second {
		n := leader(t, c, "lines", int32(s.dice.IntN(linePartitions)))
		if s.dice.IntN(2) == 0 {
			must(t, n.Kill9())
			s.pause(s.upTo(time.Second))
			must(t, n.Restart())
		} else {
			must(t, n.Pause())
			s.pause(s.upTo(2 * time.Second))
			must(t, n.Resume())
		}
		must(t, n.WaitReady(patience))
		s.pause(s.upTo(time.Second))
	}
	if err := harness.Eventually(patience, func() bool { return f.acknowledged() >= leastAcks }); err != nil {
		t.Errorf("only %d are acknowledged", f.acknowledged())
	}
	stop()
	f.check(t, c)
}

const (
	linePartitions = 2
	leastAcks      = 100 // fewer would say nothing
)

// sentAs names a message: the line is a connection's.
type sentAs struct {
	partition int32
	line, seq int
}

// What a flight keeps in place of an offset.
const (
	notTold = -1 // the answer did not come, or said that the fate is not known
	notDone = -2 // surely not there
)

// flight is what connections have sent, and what they were told.
type flight struct {
	all  sync.WaitGroup
	over chan struct{}

	mu    sync.Mutex // guards what follows
	lines int
	told  map[sentAs]int64 // an offset, or one of the above
	acks  int
}

func (f *flight) acknowledged() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.acks
}

func (f *flight) ended() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// produce opens connections, one after the other, and keeps a window of requests in flight.
func (f *flight) produce(addr string, window int, acks int16, dice *rand.Rand) {
	for !f.ended() {
		w, err := harness.DialWireWithin(addr, time.Second)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		f.mu.Lock()
		line := f.lines
		f.lines++
		f.mu.Unlock()
		room := make(chan struct{}, window)
		var reading sync.WaitGroup
		reading.Go(func() { f.read(w, line, acks, room) })
		for seq := 0; !f.ended(); seq++ {
			request := harness.Request(0, 0, int32(seq), f.body(line, seq, acks, dice))
			if acks != 0 { // else nothing is answered
				select {
				case room <- struct{}{}:
				case <-f.over:
					continue
				}
			}
			w.Conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
			if w.Send(request) != nil || acks == 0 && seq == 2000 {
				break
			}
		}
		if acks != 0 && dice.IntN(2) == 0 { // else it is closed in the middle
			w.Conn.SetReadDeadline(time.Now().Add(time.Second))
			reading.Wait()
		}
		w.Close()
		reading.Wait()
	}
}

// body is one request, to both partitions.
func (f *flight) body(line, seq int, acks int16, dice *rand.Rand) []byte {
	value := fmt.Sprintf("%d %d ", line, seq)
	switch dice.IntN(200) {
	case 0: // beside the journal, over the other connection between nodes
		value += strings.Repeat("x", 100_000)
	case 1, 2, 3, 4:
		value += strings.Repeat("x", 5_000)
	}
	b := harness.Str(harness.Int32(harness.Int32(harness.Int16(nil, acks), 20_000), 1), "lines")
	b = harness.Int32(b, linePartitions)
	for p := range int32(linePartitions) {
		set := harness.Message(nil, 0, 0, nil, []byte(value))
		if acks != 0 && dice.IntN(300) == 0 {
			set[len(set)-1] ^= 1 // its checksum is wrong
		}
		f.mu.Lock()
		f.told[sentAs{p, line, seq}] = notTold
		f.mu.Unlock()
		b = harness.Bytes(harness.Int32(b, p), set)
	}
	return b
}

// read takes answers, which come in order, until the connection ends.
func (f *flight) read(w *harness.Wire, line int, acks int16, room <-chan struct{}) {
	defer w.Close() // the sender hears of it
	for seq := 0; ; seq++ {
		id, answer, err := w.ReadFrame()
		if err != nil {
			for {
				select { // the sender may wait
				case <-room:
				case <-f.over:
					return
				case <-time.After(time.Second):
					return
				}
			}
		}
		r := harness.Reader{B: answer}
		if acks == 0 || id != int32(seq) || r.Int32() != 1 || r.Str() != "lines" || r.Int32() != linePartitions {
			panic(fmt.Sprintf("answer %d in place of %d: %x", id, seq, answer))
		}
		f.mu.Lock()
		for range linePartitions {
			p, code, base := r.Int32(), r.Int16(), r.Int64()
			switch code {
			case 0:
				f.acks++
			case 7: // REQUEST_TIMED_OUT
				base = notTold
			default:
				base = notDone
			}
			f.told[sentAs{p, line, seq}] = base
		}
		f.mu.Unlock()
		<-room
	}
}

// check reads everything and holds it against what was told.
func (f *flight) check(t *testing.T, c *harness.Cluster) {
	t.Helper()
	must(t, c.WaitReady(patience))
	known, ends := 0, [linePartitions]int64{}
	for s, told := range f.told {
		if told == notDone {
			known++
		}
		ends[s.partition] = max(ends[s.partition], told+1)
	}
	t.Logf("%d connections, %d messages, %d acknowledged, %d surely not there", f.lines, len(f.told), f.acks, known)
	for p := range int32(linePartitions) {
		entries, err := harness.ReadToEnd(c.Node(1).Addr(), "lines", p, ends[p], patience)
		must(t, err)
		at, last := map[sentAs]int64{}, map[int]int{}
		for _, e := range entries {
			s := sentAs{partition: p}
			if _, err := fmt.Sscanf(string(e.Value), "%d %d", &s.line, &s.seq); err != nil {
				t.Fatalf("%.40q at %d", e.Value, e.Offset)
			}
			if behind, ok := last[s.line]; ok && s.seq <= behind {
				t.Errorf("%+v is at %d, behind %d", s, e.Offset, behind)
			}
			at[s], last[s.line] = e.Offset, s.seq
		}
		for s, told := range f.told {
			offset, there := at[s]
			switch {
			case s.partition != p:
			case told == notDone && there:
				t.Errorf("%+v is said not to be there, and is at %d", s, offset)
			case told >= 0 && (!there || offset != told):
				t.Errorf("%+v is said to be at %d, and is there: %v, at %d", s, told, there, offset)
			}
		}
	}
}
