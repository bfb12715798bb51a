package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

const (
	warmUp    = time.Second
	afterKill = 4 * time.Second
)

// silent is a cluster whose nodes are ended, and for how long its partitions were silent.
type silent struct {
	name               string
	c                  *harness.Cluster
	led, others, worst []time.Duration
	failures           map[string]int
}

// silence ends nodes in turn, each under a load that goes through the other nodes only. With
// secured it does so in turns to a cluster and to one whose nodes know each other by certificates.
func silence(dir string, partitions int32, how string, times int, pace time.Duration, secured bool) error {
	signal, ok := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "TERM": syscall.SIGTERM}[how]
	if !ok {
		return fmt.Errorf("-kill %s: KILL, STOP or TERM", how)
	}
	all := []*silent{{name: "plaintext between nodes"}}
	if secured {
		all = append(all, &silent{name: "TLS between nodes"})
	}
	for i, s := range all {
		own := filepath.Join(dir, fmt.Sprint(i))
		var args []string
		err := os.Mkdir(own, 0o777)
		if err == nil && i > 0 {
			args, err = harness.PeerTLS(filepath.Join(dir, "secrets"), 3)
		}
		if err == nil {
			s.c, err = start(own, "", partitions, args)
		}
		if err != nil {
			return err
		}
		defer s.c.Close()
		s.failures = map[string]int{}
	}
	for i := range times {
		for _, s := range all {
			if err := s.once(i, partitions, how, signal, pace); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%s, %d times, %d partitions, a produce every %v per partition and its answer, through the other nodes\n", how, times, partitions, pace)
	for _, s := range all {
		s.print()
	}
	if secured {
		mean := func(d []time.Duration) (sum float64) {
			for _, x := range d {
				sum += x.Seconds() / float64(len(d))
			}
			return sum
		}
		fmt.Printf("TLS beside plaintext, longest silence per kill: mean %.2f times, p50 %.2f times\n",
			mean(all[1].worst)/mean(all[0].worst), at(all[1].worst, .5).Seconds()/at(all[0].worst, .5).Seconds())
	}
	return nil
}

// once ends one node and starts it again.
func (s *silent) once(i int, partitions int32, how string, signal syscall.Signal, pace time.Duration) error {
	victim := s.c.Nodes[i%len(s.c.Nodes)]
	gaps, affected, failed, err := killOnce(s.c, victim, partitions, signal, pace)
	if err != nil {
		return fmt.Errorf("%s of %s: %w\n%s", how, victim.ID, err, s.c.Logs(20))
	}
	for what, n := range failed {
		s.failures[what] += n
	}
	most := time.Duration(0)
	for p, gap := range gaps {
		most = max(most, gap)
		if affected[int32(p)] {
			s.led = append(s.led, gap)
		} else {
			s.others = append(s.others, gap)
		}
	}
	s.worst = append(s.worst, most)
	fmt.Printf("  %2d: %s, %s of %s, which led %d of %d: longest silence of any partition %d ms\n", i+1, s.name, how, victim.ID, len(affected), partitions, most.Milliseconds())
	return nil
}

func (s *silent) print() {
	fmt.Printf("%s\n", s.name)
	fmt.Printf("  silence of partitions that the node led: p50 %d ms, p99 %d ms, longest %d ms\n", at(s.led, .5).Milliseconds(), at(s.led, .99).Milliseconds(), at(s.led, 1).Milliseconds())
	fmt.Printf("  of the others:                             p50 %d ms, p99 %d ms, longest %d ms\n", at(s.others, .5).Milliseconds(), at(s.others, .99).Milliseconds(), at(s.others, 1).Milliseconds())
	fmt.Printf("  longest silence of any partition, per kill: p50 %d ms, p99 %d ms\n", at(s.worst, .5).Milliseconds(), at(s.worst, .99).Milliseconds())
	fmt.Printf("  errors that producers were answered: %v\n", s.failures)
}

func at(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// killOnce gives the longest silence of each partition around the end of the victim, and which of
// them it led.
func killOnce(c *harness.Cluster, victim *harness.Node, partitions int32, signal syscall.Signal, pace time.Duration) (gaps []time.Duration, led map[int32]bool, failed map[string]int, err error) {
	status, err := victim.Status()
	if err != nil {
		return nil, nil, nil, err
	}
	led = map[int32]bool{}
	for _, t := range status.Topics {
		for _, p := range t.Partitions {
			if p.Leader == victim.ID {
				led[p.Partition] = true
			}
		}
	}
	var gateways []string
	for _, n := range c.Nodes {
		if n != victim {
			gateways = append(gateways, n.Addr())
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := &load{pace: pace, gaps: make([]time.Duration, partitions), last: make([]time.Time, partitions), failed: map[string]int{}}
	var producers sync.WaitGroup
	for p := range partitions {
		producers.Go(func() { l.produce(ctx, p, gateways[int(p)%len(gateways)]) })
	}
	if err := l.allSince(time.Now(), time.Minute); err != nil {
		return nil, nil, nil, fmt.Errorf("before: %w", err)
	}
	time.Sleep(warmUp)
	l.mu.Lock()
	clear(l.gaps)
	clear(l.failed)
	l.mu.Unlock()
	killed := time.Now()
	if err := victim.Signal(signal); err != nil {
		return nil, nil, nil, err
	}
	time.Sleep(afterKill)
	err = l.allSince(killed.Add(afterKill/2), time.Minute)
	cancel()
	producers.Wait()
	if err != nil {
		return nil, nil, nil, err
	}
	if signal == syscall.SIGSTOP {
		if err := victim.Resume(); err != nil {
			return nil, nil, nil, err
		}
	} else {
		if _, err := victim.Wait(time.Minute); err != nil {
			return nil, nil, nil, err
		}
		if err := victim.Start(); err != nil {
			return nil, nil, nil, err
		}
	}
	if err := victim.WaitReady(time.Minute); err != nil {
		return nil, nil, nil, err
	}
	return l.gaps, led, l.failed, c.WaitApplied(time.Minute)
}

// load is one producer per partition.
type load struct {
	pace time.Duration // between an acknowledgement and the next produce of the same producer

	mu     sync.Mutex
	gaps   []time.Duration // longest time between two acknowledgements
	last   []time.Time     // of the last one
	failed map[string]int
}

func (l *load) produce(ctx context.Context, partition int32, addr string) {
	var w *harness.Wire
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	for ctx.Err() == nil {
		if w == nil {
			var err error
			if w, err = harness.DialWire(addr); err != nil {
				l.fail("dial: " + err.Error())
				l.wait(ctx)
				continue
			}
		}
		w.Conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := w.Produce("many", partition, -1, "value")
		var code harness.ErrorCode
		switch {
		case err == nil:
			now := time.Now()
			l.mu.Lock()
			if !l.last[partition].IsZero() {
				l.gaps[partition] = max(l.gaps[partition], now.Sub(l.last[partition]))
			}
			l.last[partition] = now
			l.mu.Unlock()
		case errors.As(err, &code):
			l.fail(err.Error())
		default:
			l.fail("connection: " + err.Error())
			w.Close()
			w = nil
		}
		l.wait(ctx)
	}
}

// wait is the pause between two produces, or what is left of the run.
func (l *load) wait(ctx context.Context) {
	select {
	case <-time.After(l.pace):
	case <-ctx.Done():
	}
}

func (l *load) fail(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[what]++
}

// allSince waits until every partition was acknowledged after t.
func (l *load) allSince(t time.Time, within time.Duration) error {
	silent := 0
	err := harness.Eventually(within, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		silent = 0
		for _, last := range l.last {
			if !last.After(t) {
				silent++
			}
		}
		return silent == 0
	})
	if err != nil {
		return fmt.Errorf("%d partitions take no records", silent)
	}
	return nil
}
