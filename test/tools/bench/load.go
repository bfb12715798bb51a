package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// load is what is produced: batches of p to partitions of a topic in turn, over several
// connections.
type load struct {
	topic      string
	partitions int
	p          payload
	conns      int
	inFlight   int // unanswered requests of each connection
	// requests, of all connections together; 0: as many as the room in flight allows
	perSecond float64
	trim      bool // delete what was written while more is: what is in memory stays small
	// sending is told when each request is sent, or should have been; nil: nobody wants to know
	sending func(at time.Time)
}

// result is one window, or the median of several.
type result struct {
	bytes, records int
	took           time.Duration
	used           usage
	latency        []time.Duration
}

func (r result) mb() float64        { return float64(r.bytes) / 1e6 }
func (r result) mbs() float64       { return r.mb() / r.took.Seconds() }
func (r result) perSecond() float64 { return float64(r.records) / r.took.Seconds() }
func (r result) cpuPerMB() float64  { return float64(r.used.cpu.Microseconds()) / 1000 / r.mb() }
func (r result) cores() float64     { return r.used.cpu.Seconds() / r.took.Seconds() }
func (r result) p(q float64) string { return ms(quantile(r.latency, q)) }
func (r result) wrote() (s string) {
	if r.used.wrote == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(r.used.wrote)/3/float64(r.bytes))
}

func header() {
	fmt.Printf("  %-34s %9s %11s %11s %11s %10s %7s %6s\n", "", "MB/s", "records/s", "p50", "p99", "CPU ms/MB", "cores", "wrote")
}

func (r result) print(what string) {
	fmt.Printf("  %-34s %9.1f %11.0f %11s %11s %10.2f %7.2f %6s\n", what, r.mbs(), r.perSecond(), r.p(0.5), r.p(0.99), r.cpuPerMB(), r.cores(), r.wrote())
}

// produce sends for one window over w.
func (l load) produce(c *harness.Cluster, w way, window time.Duration) (result, error) {
	before, err := used(c, w.through)
	if err != nil {
		return result{}, err
	}
	results, errs := make([]result, l.conns), make([]error, l.conns)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	trimmed := make(chan error, 1)
	if l.trim {
		go func() { trimmed <- l.trimming(ctx, c) }()
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range l.conns {
		wg.Go(func() { results[i], errs[i] = l.connection(w, i, start, window) })
	}
	wg.Wait()
	var r result
	r.took = time.Since(start)
	for _, one := range results {
		r.bytes += one.bytes
		r.records += one.records
		r.latency = append(r.latency, one.latency...)
	}
	after, err := used(c, w.through)
	r.used = usage{after.cpu - before.cpu, after.shim - before.shim, after.wrote - before.wrote}
	if stop(); l.trim {
		errs = append(errs, <-trimmed)
	}
	return r, errors.Join(append(errs, err)...)
}

// trimming deletes the partitions' records a few times in a second, with DeleteRecords, until ctx
// ends. Segments must be small for it to free anything. Without it a run in memory soon measures
// what new memory costs: a virtual machine gets it from its host, which takes several times as long
// as to write to it again.
func (l load) trimming(ctx context.Context, c *harness.Cluster) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Node(1).Addr()))
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic = l.topic
	for i := range l.partitions {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = int32(i), -1 // to the high watermark
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(300 * time.Millisecond):
		}
		if _, err := req.RequestWith(ctx, cl); err != nil && ctx.Err() == nil {
			return fmt.Errorf("delete records: %w", err)
		}
	}
}

// connection is one connection's part: the i-th of l.conns.
func (l load) connection(w way, i int, start time.Time, window time.Duration) (r result, err error) {
	conn, err := w.dial()
	if err != nil {
		return r, err
	}
	var requests [][]byte
	for p := i; p < max(l.partitions, i+1); p += l.conns {
		requests = append(requests, l.p.produceRequest(l.topic, int32(p%l.partitions)))
	}
	return l.exchange(conn, requests, i, start, window)
}

// exchange sends requests in turn and reads their answers, as the i-th of l.conns connections.
func (l load) exchange(conn net.Conn, requests [][]byte, i int, start time.Time, window time.Duration) (r result, err error) {
	wire := harness.NewWire(conn)
	defer wire.Close()
	conn.SetDeadline(time.Now().Add(window + 60*time.Second))
	sent := make(chan time.Time, l.inFlight)
	room := make(chan struct{}, l.inFlight) // an element for each request that is not answered
	failed := make(chan error, 1)
	go func() {
		defer close(sent)
		for n := 0; time.Since(start) < window; n++ {
			var due time.Time
			if l.perSecond > 0 {
				due = start.Add(time.Duration(float64(n*l.conns+i) / l.perSecond * float64(time.Second)))
				time.Sleep(time.Until(due))
			}
			room <- struct{}{}
			at := time.Now()
			if l.perSecond > 0 {
				at = due // what had to wait for room counts as waiting
			}
			if sent <- at; l.sending != nil {
				l.sending(at)
			}
			if err := wire.Send(requests[n%len(requests)]); err != nil {
				failed <- err
				return
			}
		}
	}()
	for at := range sent {
		_, answer, err := wire.ReadFrame()
		<-room
		if err == nil {
			err = l.p.readProduce(answer)
		}
		if err != nil {
			conn.Close() // lets the sender go
			for range sent {
				<-room
			}
			return r, err
		}
		r.latency = append(r.latency, time.Since(at))
		r.bytes += l.p.records * recordSize
		r.records += l.p.records
	}
	select {
	case err = <-failed:
	default:
	}
	return r, err
}

// median runs several windows and gives the one in the middle by MB/s, with all latencies and the
// sum's CPU.
func (b *bench) median(c *harness.Cluster, w way, l load) (result, error) {
	// The first requests find cold caches and connections.
	if _, err := l.produce(c, w, b.window/4); err != nil {
		return result{}, err
	}
	var all []result
	var sum result
	for range b.windows {
		r, err := l.produce(c, w, b.window)
		if err != nil {
			return r, err
		}
		all = append(all, r)
		sum.bytes += r.bytes
		sum.used.cpu += r.used.cpu
		sum.used.wrote += r.used.wrote
		sum.latency = append(sum.latency, r.latency...)
	}
	mid := median(all)
	mid.latency = sum.latency
	return mid, nil
}

// median gives the one in the middle by MB/s.
func median(all []result) result {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b result) int { return cmp.Compare(a.mbs(), b.mbs()) })
	return sorted[len(sorted)/2]
}

// fetchAll reads partitions from the start, one consumer after the other, until everything or
// enough was read.
func fetchAll(c *harness.Cluster, w way, topic string, partitions int, p payload, enough int) (r result, err error) {
	conn, err := w.dial()
	if err != nil {
		return r, err
	}
	wire := harness.NewWire(conn)
	defer wire.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	s, err := c.Node(1).Status()
	if err != nil {
		return r, err
	}
	ends := make([]int64, partitions)
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if t.Name == topic {
				ends[p.Partition] = int64(p.HighWatermark)
			}
		}
	}
	before, err := used(c, w.through)
	if err != nil {
		return r, err
	}
	start := time.Now()
	next := make([]int64, partitions)
	for left := true; left && r.bytes < enough; {
		left = false
		for i := range partitions {
			if next[i] >= ends[i] {
				continue
			}
			left = true
			at := time.Now()
			f, err := p.fetch(wire, topic, int32(i), next[i])
			if err != nil {
				return r, err
			}
			if f.records == 0 {
				return r, errors.New("a fetch below the end came back empty")
			}
			r.latency = append(r.latency, time.Since(at))
			r.records += f.records
			r.bytes += f.bytes
			next[i] = f.next
		}
	}
	r.took = time.Since(start)
	after, err := used(c, w.through)
	r.used = usage{cpu: after.cpu - before.cpu}
	return r, err
}
