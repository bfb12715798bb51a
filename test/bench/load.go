package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/test/harness"
)

// way is how the client reaches the cluster.
type way struct {
	name string
	dial func() (net.Conn, error)
	shim bool // the shim's CPU counts too
}

// ways lead to the first node; its role (leader or not) is what placement made it.
func ways(c *harness.Cluster) []way {
	node := c.Node(1).Addr()
	return []way{
		{"TCP", func() (net.Conn, error) { return net.Dial("tcp", node) }, false},
		{"WebSocket", func() (net.Conn, error) {
			return (&shim.Dialer{}).DialContext(context.Background(), "tcp", node)
		}, false},
		{"shim", func() (net.Conn, error) { return net.Dial("tcp", c.ShimAddr()) }, true},
	}
}

const recordSize = 1 << 10 // value bytes; 26 more on the wire

// batch gives a message set of about size bytes: whole 1 KB records of noise.
func batch(size int) (set []byte, records int) {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	value := make([]byte, recordSize)
	for records = 0; records == 0 || len(set)+recordSize+26 <= size; records++ {
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		set = harness.Message(set, int64(records), 0, nil, value)
	}
	return set, records
}

// cpu gives the user and system time that processes have used so far.
func cpu(pids []int) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	var total time.Duration
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return 0, err
		}
		// The second field is the program's name in parentheses; utime and stime
		// are the 14th and 15th.
		s := string(b)
		fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * tick
		}
	}
	return total, nil
}

func pids(c *harness.Cluster, w way) []int {
	var out []int
	for _, n := range c.Nodes {
		out = append(out, n.Pid())
	}
	if w.shim {
		out = append(out, c.Shim.Pid())
	}
	return out
}

// result is one line of the table.
type result struct {
	bytes, records int
	took, cpu      time.Duration
	latency        []time.Duration
}

func (r result) print(w way, what string) {
	mb := float64(r.bytes) / 1e6
	fmt.Printf("%-10s %-14s %10.1f %12.0f %9s %9s %11.2f\n", w.name, what, mb/r.took.Seconds(), float64(r.records)/r.took.Seconds(),
		ms(quantile(r.latency, 0.5)), ms(quantile(r.latency, 0.99)), float64(r.cpu.Microseconds())/1000/mb)
}

// measure produces for the time given with requests in flight that hold about
// 4 MB together (at most 64 requests), then reads everything back, 1 MB a fetch.
func measure(c *harness.Cluster, w way, size int, window time.Duration) error {
	topic := harness.Topic(fmt.Sprintf("bench-%s-%d", strings.ToLower(w.name), size>>10))
	if err := c.CreateTopic(context.Background(), topic, 1, 3); err != nil {
		return err
	}
	set, records := batch(size)
	produced, err := produce(c, w, topic, set, records, min(64, max(4, 4<<20/size)), window)
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	produced.print(w, "produce "+sizeName(size))
	fetched, err := fetch(c, w, topic, produced.records)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	fetched.print(w, "fetch "+sizeName(size))
	return nil
}

func produce(c *harness.Cluster, w way, topic string, set []byte, records, inFlight int, window time.Duration) (result, error) {
	conn, err := w.dial()
	if err != nil {
		return result{}, err
	}
	wire := harness.NewWire(conn)
	defer wire.Close()
	conn.SetDeadline(time.Now().Add(window + 60*time.Second))
	request := harness.Request(0, 0, 1, harness.ProduceBody(topic, 0, -1, 30_000, set))

	before, err := cpu(pids(c, w))
	if err != nil {
		return result{}, err
	}
	sent := make(chan time.Time, inFlight) // its room is the bound on what is in flight
	failed := make(chan error, 1)
	start := time.Now()
	go func() {
		defer close(sent)
		for time.Since(start) < window {
			sent <- time.Now()
			if err := wire.Send(request); err != nil {
				failed <- err
				return
			}
		}
	}()
	var r result
	for at := range sent {
		_, answer, err := wire.ReadFrame()
		if err == nil {
			_, err = harness.ReadProduce(answer)
		}
		if err != nil {
			conn.Close() // lets the sender go
			for range sent {
			}
			return r, err
		}
		r.latency = append(r.latency, time.Since(at))
		r.bytes += records * recordSize
		r.records += records
	}
	r.took = time.Since(start)
	select {
	case err := <-failed:
		return r, err
	default:
	}
	after, err := cpu(pids(c, w))
	r.cpu = after - before
	return r, err
}

func fetch(c *harness.Cluster, w way, topic string, records int) (result, error) {
	conn, err := w.dial()
	if err != nil {
		return result{}, err
	}
	wire := harness.NewWire(conn)
	defer wire.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	before, err := cpu(pids(c, w))
	if err != nil {
		return result{}, err
	}
	var r result
	start := time.Now()
	for next := int64(0); r.records < records; {
		at := time.Now()
		_, set, err := wire.Fetch(topic, 0, next, 1000, 1, 1<<20)
		if err != nil {
			return r, err
		}
		r.latency = append(r.latency, time.Since(at))
		entries, _, err := harness.Messages(set)
		if err != nil {
			return r, err
		}
		if len(entries) == 0 {
			return r, errors.New("a fetch below the end came back empty")
		}
		for _, e := range entries {
			if e.Offset >= next {
				r.records++
				r.bytes += len(e.Value)
			}
		}
		next = entries[len(entries)-1].Offset + 1
	}
	r.took = time.Since(start)
	after, err := cpu(pids(c, w))
	r.cpu = after - before
	return r, err
}

// measureOne waits for each record's acknowledgement before it sends the next.
func measureOne(c *harness.Cluster, w way, window time.Duration) error {
	topic := harness.Topic("bench-one-" + strings.ToLower(w.name))
	if err := c.CreateTopic(context.Background(), topic, 1, 3); err != nil {
		return err
	}
	conn, err := w.dial()
	if err != nil {
		return err
	}
	wire := harness.NewWire(conn)
	defer wire.Close()
	set, _ := batch(1)
	request := harness.Request(0, 0, 1, harness.ProduceBody(topic, 0, -1, 30_000, set))
	conn.SetDeadline(time.Now().Add(window + 60*time.Second))
	var each []time.Duration
	for start := time.Now(); time.Since(start) < window; {
		at := time.Now()
		if err := wire.Send(request); err != nil {
			return err
		}
		_, answer, err := wire.ReadFrame()
		if err == nil {
			_, err = harness.ReadProduce(answer)
		}
		if err != nil {
			return err
		}
		each = append(each, time.Since(at))
	}
	fmt.Printf("%-10s p50 %s, p99 %s, %d records\n", w.name, ms(quantile(each, 0.5)), ms(quantile(each, 0.99)), len(each))
	return nil
}
