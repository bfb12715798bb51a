package session

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// tape is a framer that gives requests and keeps answers.
type tape struct {
	requests  chan string
	interrupt chan struct{}
	once      sync.Once
	gone      atomic.Bool // the client has closed its side

	mu      sync.Mutex // guards the rest
	answers []string
	why     error
	closed  bool
}

func newTape() *tape {
	return &tape{requests: make(chan string, 1000), interrupt: make(chan struct{})}
}

func (f *tape) ReadFrame(reserve func(int) error) ([]byte, error) {
	select {
	case <-f.interrupt:
		return nil, ErrInterrupted
	default:
	}
	select {
	case r, ok := <-f.requests:
		if !ok {
			return nil, io.EOF
		}
		return []byte(r), nil
	case <-f.interrupt:
		return nil, ErrInterrupted
	}
}

func (f *tape) Write(frame [][]byte, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = append(f.answers, string(slices.Concat(frame...)))
	return nil
}

func (f *tape) Flush() error { return nil }
func (f *tape) Gone() bool   { return f.gone.Load() }
func (f *tape) Interrupt()   { f.once.Do(func() { close(f.interrupt) }) }

func (f *tape) Close(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why, f.closed = why, true
}

func (f *tape) answered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.answers)
}

// held is a handler that keeps replies until the test completes them.
type held chan *Reply

func (h held) Handle(r *Reply, frame []byte) error {
	h <- r
	return nil
}

// serve runs a session in a bubble.
func serve(t *testing.T, test func(t *testing.T, f *tape, replies held, n *Session, over <-chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		cfg := &Config{
			Context: ctx, Go: func(f func()) { go f() }, Requests: NewBudget(1 << 20), Logger: slog.New(slog.DiscardHandler),
			Refused: func(string, error, ...any) {}, Read: func(int) {}, Written: func(int) {},
		}
		f, replies, over := newTape(), make(held, 1000), make(chan struct{})
		n := New(cfg, f, replies, &net.TCPAddr{})
		go func() { n.Run(); close(over) }()
		test(t, f, replies, n, over)
	})
}

// Answers go out in the order of requests, whichever is there first.
func TestAnswersAreInTheOrderOfRequests(t *testing.T) {
	serve(t, func(t *testing.T, f *tape, replies held, _ *Session, over <-chan struct{}) {
		var all []*Reply
		for _, r := range []string{"a", "b", "c"} {
			f.requests <- r
			all = append(all, <-replies)
		}
		for i, r := range slices.Backward(all) {
			r.Complete([][]byte{{byte('0' + i)}}, nil)
			synctest.Wait()
			if got := f.answered(); i > 0 && got != 0 {
				t.Errorf("%d answers before the first", got)
			}
		}
		close(f.requests)
		<-over
		if want := []string{"0", "1", "2"}; !slices.Equal(f.answers, want) || !f.closed || f.why != nil {
			t.Errorf("%q, want %q; closed %v with %v", f.answers, want, f.closed, f.why)
		}
	})
}

// A session that is drained reads no more and answers what it has read; its end says that it did.
func TestADrainedSessionAnswersWhatItHasRead(t *testing.T) {
	serve(t, func(t *testing.T, f *tape, replies held, n *Session, over <-chan struct{}) {
		f.requests <- "a"
		r := <-replies
		n.Drain()
		f.requests <- "too late"
		synctest.Wait()
		if r.Patient().Err() == nil || r.Open().Err() != nil {
			t.Error("who waits for records is not hurried, or loses the answer")
		}
		r.Complete([][]byte{[]byte("a")}, nil)
		<-over
		if !slices.Equal(f.answers, []string{"a"}) || f.why != ErrAllAnswered {
			t.Errorf("%q, %v", f.answers, f.why)
		}
	})
}

// Who works on a request finds out that its client has closed its side: by what was read, and
// before that was.
func TestRequestsOfClientsThatAreGone(t *testing.T) {
	serve(t, func(t *testing.T, f *tape, replies held, _ *Session, over <-chan struct{}) {
		f.requests <- "a"
		r := <-replies
		ctx := r.Awaited()
		if ctx.Err() != nil {
			t.Error("the client is there")
		}
		close(f.requests)
		synctest.Wait()
		if ctx.Err() == nil || r.Open().Err() != nil {
			t.Error("the client has closed its side, and may read still")
		}
		r.Complete(nil, nil)
		<-over
	})
	serve(t, func(t *testing.T, f *tape, replies held, _ *Session, over <-chan struct{}) {
		f.requests <- "a"
		r := <-replies
		f.gone.Store(true)
		if r.Awaited().Err() == nil {
			t.Error("the client has closed its side")
		}
		r.Complete(nil, nil)
		close(f.requests)
		<-over
	})
}

// No more requests are read than may be pending.
func TestPendingRequestsAreBounded(t *testing.T) {
	serve(t, func(t *testing.T, f *tape, replies held, _ *Session, over <-chan struct{}) {
		for range 5 * MaxPending {
			f.requests <- "r"
		}
		synctest.Wait()
		if n := len(replies); n > MaxPending+2 {
			t.Errorf("%d requests are pending", n)
		}
		close(f.requests)
		for range 5 * MaxPending {
			(<-replies).Complete(nil, nil)
		}
		<-over
	})
}

// What a request takes beside its frame is counted until it is complete.
func TestWhatARequestTakesIsCounted(t *testing.T) {
	serve(t, func(t *testing.T, f *tape, replies held, n *Session, over <-chan struct{}) {
		f.requests <- "a"
		r := <-replies
		if err := r.Charge(SmallRequest); err != nil || n.cfg.Requests.Held() != 0 {
			t.Errorf("%v; %d bytes are counted for a small request", err, n.cfg.Requests.Held())
		}
		if err := r.Charge(100_000); err != nil || n.cfg.Requests.Held() != 100_000 {
			t.Errorf("%v; %d bytes are counted", err, n.cfg.Requests.Held())
		}
		r.Complete(nil, nil)
		if held := n.cfg.Requests.Held(); held != 0 || n.held.Load() != 0 {
			t.Errorf("%d bytes are counted when it is over, %d at the session", held, n.held.Load())
		}
		close(f.requests)
		<-over
	})
}
