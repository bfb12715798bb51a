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

	topic      string
	partitions int32
	login      *Login // nil: none
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	mu       sync.Mutex     // guards failures
	failures map[string]int // what went wrong, and how often
}

// loadValue is about how long a value of a Load is, in bytes.
const loadValue = 1

// StartLoad starts producers for each partition through each address. acks is -1 or 1.
func StartLoad(topic string, partitions int32, addrs []string, acks int16) *Load {
	return StartLoadAs(nil, topic, partitions, addrs, acks)
}

// StartLoadAs is StartLoad by producers that log in. So does Verify.
func StartLoadAs(login *Login, topic string, partitions int32, addrs []string, acks int16) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{
		Ledger: NewLedger(partitions, time.Now()), topic: topic, partitions: partitions, login: login, cancel: cancel,
		failures: map[string]int{},
	}
	for p := range partitions {
		for i, addr := range addrs {
			producer := p*int32(len(addrs)) + int32(i)
			l.wg.Go(func() { l.produce(ctx, p, producer, addr, acks) })
		}
	}
	return l
}

// requestLimit is how long a producer waits for an answer before it gives its
// connection up: longer than the time that a gateway may hold a produce.
const requestLimit = 5 * time.Second

func (l *Load) produce(ctx context.Context, partition, producer int32, addr string, acks int16) {
	var w *Wire
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	for n := int32(0); ctx.Err() == nil; n++ {
		if w == nil {
			var err error
			if w, err = l.login.Dial(addr, 5*time.Second); err != nil {
				l.failed("dial: " + short(err))
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
				continue
			}
		}
		sent := []Attempt{{Producer: producer, Seq: n}}
		key, value := []byte(sent[0].Key()), []byte(sent[0].Value(loadValue))
		l.Ledger.Sent(sent)
		w.Conn.SetDeadline(time.Now().Add(requestLimit))
		offset, err := w.ProduceSet(l.topic, partition, acks, 10*time.Second, Message(nil, 0, 0, key, value))
		if err != nil {
			l.Ledger.Unknown(sent, short(err))
		}
		var code ErrorCode
		switch {
		case err == nil:
			l.Ledger.Acknowledged(partition, sent, offset, len(key)+len(value), time.Now())
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

func (l *Load) failed(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures[what]++
}

// Progress waits until n more records of every partition are acknowledged.
func (l *Load) Progress(n int, within time.Duration) error {
	ends := func() []int64 {
		var now []int64
		for p := range l.partitions {
			now = append(now, l.Ledger.End(p))
		}
		return now
	}
	start := ends()
	err := Eventually(within, func() bool {
		for p, end := range ends() {
			if end < start[p]+int64(n) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("no progress by %d records within %s: ends %v, then %v; %s", n, within, start, ends(), l)
	}
	return nil
}

// Stop ends the producers and gives the first impossible acknowledgement.
func (l *Load) Stop() error {
	l.cancel()
	l.wg.Wait()
	return l.Ledger.Impossible()
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
	_, gap := l.Ledger.Longest()
	return gap.Length
}

// ForgetSilence begins to measure Silence anew.
func (l *Load) ForgetSilence() { l.Ledger.ForgetSilence() }

// String tells how it went.
func (l *Load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d acknowledged, longest silence of a partition %s, failures %v", l.Ledger.Count(), l.Silence().Round(time.Millisecond), l.failures)
}

// Verify reads every partition back through one address and compares it with what was acknowledged.
// A value is sent once and never tried again, so what was sent and not acknowledged may be there or
// not, and once at most.
func (l *Load) Verify(addr string, within time.Duration) error {
	deadline := time.Now().Add(within)
	for p := range l.partitions {
		entries, err := l.login.ReadToEnd(addr, l.topic, p, l.Ledger.End(p), time.Until(deadline))
		if err != nil {
			return fmt.Errorf("through %s: %w", addr, err)
		}
		if err := l.Ledger.Check(addr, p, entries, loadValue); err != nil {
			return err
		}
	}
	return nil
}
