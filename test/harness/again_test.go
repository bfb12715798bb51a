package harness

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// broker answers the n-th connection's only request, a Produce of "t", as answers[n] says.
type broker struct {
	net.Listener
	answers []func(w *Wire, correlation int32)
}

func code(code int16) func(*Wire, int32) {
	return func(w *Wire, correlation int32) {
		b := Int32(Str(Int32(Int32(nil, correlation), 1), "t"), 1)
		_ = w.Send(Frame(Int64(Int16(Int32(b, 0), code), 7)))
	}
}

func hangUp(*Wire, int32) {}

func anothersAnswer(w *Wire, correlation int32) { code(0)(w, correlation+1) }

func serveBroker(t *testing.T, answers ...func(*Wire, int32)) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for _, answer := range answers {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w := NewWire(conn)
			_, request, err := w.ReadFrame() // its "correlation" are the key and the version
			if err == nil {
				r := Reader{B: request}
				answer(w, r.Int32())
			}
			w.Close()
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return &broker{l, answers}
}

var errAny = errors.New("any error")

// Who is sent away, or told to ask again, asks again. All else is a fault at once.
func TestWhoAsksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		answers []func(*Wire, int32)
		want    error
		tries   int
	}{
		"at once":             {[]func(*Wire, int32){code(0)}, nil, 1},
		"sent away":           {[]func(*Wire, int32){hangUp, hangUp, code(0)}, nil, 3},
		"another leader":      {[]func(*Wire, int32){code(6), code(5), code(7), code(0)}, nil, 4},
		"the one before ends": {[]func(*Wire, int32){code(51), code(14), code(0)}, nil, 3},
		"refused":             {[]func(*Wire, int32){code(10), code(0)}, ErrorCode(10), 1},
		"sent away, refused":  {[]func(*Wire, int32){hangUp, code(2), code(0)}, ErrorCode(2), 2},
		"another's answer":    {[]func(*Wire, int32){anothersAnswer, code(0)}, errAny, 1},
	} {
		b := serveBroker(t, test.answers...)
		base, tries, err := Produce(b.Addr().String(), "t", 0, "v", time.Minute)
		if test.want == errAny && err != nil {
			err = errAny
		}
		if err != test.want || tries != test.tries || err == nil && base != 7 {
			t.Errorf("%s: offset %d after %d tries: %v, want %v after %d", name, base, tries, err, test.want, test.tries)
		}
	}
}

// Nobody asks for ever.
func TestWhoAsksAgainGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there
	if _, _, err := Produce(l.Addr().String(), "t", 0, "v", 100*time.Millisecond); err == nil {
		t.Error("nobody answered, and all is well")
	}
}
