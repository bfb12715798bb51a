package order

import "github.com/trimaran-io/trimaran/internal/locks"

// Turns keeps the requests of one connection about one consumer group in line. A broker of Kafka's
// works on one request of a connection at a time, and clients rely on it: Java's commitAsync sends
// the next commit before the last one is answered, and the last one sent is to count. The zero
// value is ready.
type Turns struct {
	mu locks.Mutex[Turns] // guards last; nothing is taken and nobody waits under it
	// last has, by group, what is closed when the last request about it that was read is worked
	// on. Then the key is gone.
	last map[string]chan struct{}
}

// Take puts a request about these groups, nil for all, at the end of their lines. It must call end
// when it is worked on, and not begin before wait has returned.
func (t *Turns) Take(groups []string) (wait, end func()) {
	done := make(chan struct{})
	before := make([]chan struct{}, 0, len(groups))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = map[string]chan struct{}{}
	}
	if groups == nil {
		for _, last := range t.last {
			before = append(before, last)
		}
	}
	for _, group := range groups {
		if last, ok := t.last[group]; ok && last != done {
			before = append(before, last)
		}
		t.last[group] = done
	}
	wait = func() {
		for _, last := range before {
			locks.MayWait("the request before")
			<-last
		}
	}
	end = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, group := range groups {
			if t.last[group] == done {
				delete(t.last, group)
			}
		}
		close(done)
	}
	return wait, end
}
