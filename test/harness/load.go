package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Load keeps producers busy while a test breaks things, and keeps the ledger of
// what they were told. Each request carries one value that is never sent again,
// so that a doubled or moved record cannot hide behind a client's retry.
type Load struct {
	Ledger *Ledger

	topic  string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	last     map[int32]time.Time     // last acknowledgement, by partition
	silence  map[int32]time.Duration // longest time without one, by partition
	failures map[string]int          // what went wrong, and how often
	err      error                   // an acknowledgement that cannot be
}

// StartLoad starts producers for each partition through each address. acks is -1 or 1.
func StartLoad(topic string, partitions int32, addrs []string, acks int16) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		Ledger: NewLedger(), topic: topic, cancel: cancel,
		last: map[int32]time.Time{}, silence: map[int32]time.Duration{}, failures: map[string]int{},
	}
	for p := range partitions {
		l.last[p] = time.Now()
	}
	for p := range partitions {
		for i, addr := range addrs {
			l.wg.Go(func() { l.produce(ctx, p, i, addr, acks) })
		}
	}
	return l
}

// requestLimit is how long a producer waits for an answer before it gives its
// connection up: longer than the time that a gateway may hold a produce.
const requestLimit = 5 * time.Second

func (l *Load) produce(ctx context.Context, partition int32, producer int, addr string, acks int16) {
	var w *Wire
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if w == nil {
			var err error
			if w, err = DialWire(addr); err != nil {
				l.failed("dial: " + short(err))
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
				continue
			}
		}
		value := fmt.Sprintf("p%d-%d-%d", partition, producer, n)
		l.Ledger.Sent(value)
		w.Conn.SetDeadline(time.Now().Add(requestLimit))
		offset, err := w.Produce(l.topic, partition, acks, value)
		var code ErrorCode
		switch {
		case err == nil:
			l.acknowledged(partition, offset, value)
		case errors.As(err, &code):
			l.failed(err.Error())
			select { // a retriable error: as clients do, not at once
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		default:
			l.failed("connection: " + short(err))
			w.Close()
			w = nil
		}
	}
}

func short(err error) string {
	for e := err; e != nil; e = errors.Unwrap(e) {
		err = e
	}
	return err.Error()
}

func (l *Load) acknowledged(partition int32, offset int64, value string) {
	err := l.Ledger.Acknowledged(partition, offset, value)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.silence[partition] = max(l.silence[partition], now.Sub(l.last[partition]))
	l.last[partition] = now
	if err != nil && l.err == nil {
		l.err = err
	}
}

func (l *Load) failed(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures[what]++
}

// Progress waits until n more records of every partition are acknowledged.
func (l *Load) Progress(n int, within time.Duration) error {
	start := map[int32]int64{}
	l.mu.Lock()
	for p := range l.last {
		start[p] = l.Ledger.End(p)
	}
	l.mu.Unlock()
	err := Eventually(within, func() bool {
		for p, from := range start {
			if l.Ledger.End(p) < from+int64(n) {
				return false
			}
		}
		return true
	})
	if err != nil {
		now := map[int32]int64{}
		for p := range start {
			now[p] = l.Ledger.End(p)
		}
		return fmt.Errorf("no progress by %d records within %s: ends %v, then %v; %s", n, within, start, now, l)
	}
	return nil
}

// Stop ends the producers and gives the first impossible acknowledgement.
func (l *Load) Stop() error {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Failures gives how many requests and connections failed.
func (l *Load) Failures() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.failures {
		n += times
	}
	return n
}

// Silence gives the longest time that any partition was without an acknowledgement.
func (l *Load) Silence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	for _, d := range l.silence {
		longest = max(longest, d)
	}
	return longest
}

// ForgetSilence begins to measure Silence anew.
func (l *Load) ForgetSilence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.silence)
}

// String tells how it went.
func (l *Load) String() string {
	silence := l.Silence()
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d acknowledged, longest silence of a partition %s, failures %v", l.Ledger.Count(), silence.Round(time.Millisecond), l.failures)
}

// Verify reads every partition back through one address and compares it with
// what was acknowledged.
func (l *Load) Verify(addr string, within time.Duration) error {
	deadline := time.Now().Add(within)
	l.mu.Lock()
	var partitions []int32
	for p := range l.last {
		partitions = append(partitions, p)
	}
	l.mu.Unlock()
	for _, p := range partitions {
		w, err := DialWire(addr)
		if err != nil {
			return err
		}
		entries, err := w.readToEnd(l.topic, p, l.Ledger.End(p), time.Until(deadline))
		w.Close()
		if err == nil {
			err = l.Ledger.Check(p, entries)
		}
		if err != nil {
			return fmt.Errorf("through %s: %w", addr, err)
		}
	}
	return nil
}

// readToEnd reads at least until the given offset, then whatever is left.
func (w *Wire) readToEnd(topic string, partition int32, until int64, within time.Duration) ([]Entry, error) {
	var offsets []int64
	err := Eventually(within, func() bool {
		var err error
		offsets, err = w.ListOffsets(topic, partition, -1, 1)
		return err == nil && len(offsets) == 1 && offsets[0] >= until
	})
	if err != nil {
		return nil, fmt.Errorf("latest offset of %s-%d is %v, acknowledged up to %d: %w", topic, partition, offsets, until, err)
	}
	return w.FetchAll(topic, partition, offsets[0], within)
}
