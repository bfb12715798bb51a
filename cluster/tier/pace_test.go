package tier

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// machine is one whose processors are busy with what produces, and with old reads.
type machine struct {
	producing float64 // of the processors
	syncing   float64 // times a second
	costs     float64 // of the processors, for each byte a second that is read

	read, before int64
	at           time.Time
	busy, synced float64
	all          time.Duration
}

// step brings the machine's counts up to now.
func (m *machine) step() {
	took := time.Since(m.at)
	if took == 0 {
		return
	}
	reading := m.costs * float64(m.read-m.before) / took.Seconds()
	m.busy += min(m.producing+reading, 1) * float64(took)
	m.synced += m.syncing * took.Seconds()
	m.all, m.at, m.before = m.all+took, time.Now(), m.read
}

// readFor has a reader read, 400 MB/s at most, and gives the bytes a second that it got.
func (m *machine) readFor(t *testing.T, p *pacer, howLong time.Duration) float64 {
	began, was := time.Now(), m.read
	for time.Since(began) < howLong {
		n, err := p.wait(t.Context(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		m.read += int64(n)
		time.Sleep(time.Duration(float64(n) / 400e6 * float64(time.Second)))
	}
	return float64(m.read-was) / time.Since(began).Seconds()
}

func newMachine() (*machine, *pacer) {
	m := &machine{at: time.Now(), costs: 0.9 / 400e6}
	p := newPacer(func() int64 { return int64(m.synced) })
	p.floor = 16e6
	p.load = func() (busy, all int64, ok bool) {
		m.step()
		return int64(m.busy), int64(m.all), true
	}
	return m, p
}

// Old reads leave the processors to those who produce, and have all that these leave.
func TestOldReadsComeSecond(t *testing.T) {
	for _, c := range []struct {
		what               string
		producing, syncing float64
		least, most        float64 // MB/s that are read
	}{
		{"nobody produces, and other programs take all", 1, 0, 390, 401},
		{"somebody commits offsets, and other programs take all", 1, 2, 390, 401},
		{"producers take all", 1, 500, 10, 20},
		{"producers take a third", 0.33, 500, 150, 290},
		{"producers take next to nothing", 0.02, 500, 280, 401},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, p := newMachine()
			m.readFor(t, p, time.Second)
			m.producing, m.syncing = c.producing, c.syncing
			m.readFor(t, p, 3*time.Second)
			if got := m.readFor(t, p, 5*time.Second) / 1e6; got < c.least || got > c.most {
				t.Errorf("%s: %.0f MB/s are read, want %.0f to %.0f", c.what, got, c.least, c.most)
			}
			m.producing, m.syncing = 0, 0
			m.readFor(t, p, 3*time.Second)
			if got := m.readFor(t, p, time.Second) / 1e6; got < 390 {
				t.Errorf("%s, and then nothing any more: %.0f MB/s are read", c.what, got)
			}
		})
	}
}

// Who cannot have a turn in time is told to come again, and takes none from others.
func TestTurnsOfOldReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMachine()
		m.producing, m.syncing = 1, 500
		m.readFor(t, p, 3*time.Second)
		const readers = 100
		began := time.Now()
		got, later := make(chan int, readers), 0
		for range readers {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
				defer cancel()
				n, err := p.wait(ctx, 1<<20)
				if err != nil && !errors.Is(err, ErrLater) {
					t.Error(err)
				}
				got <- n
			}()
		}
		bytes := 0
		for range readers {
			n := <-got
			if bytes += n; n == 0 {
				later++
			}
		}
		took := time.Since(began).Seconds()
		if took > 0.5 || later == 0 || later == readers || float64(bytes) > 1.5*p.floor*took+pacedBytes {
			t.Errorf("%d of %d readers have to come again, the others have %d bytes after %.3f s", later, readers, bytes, took)
		}
		began = time.Now()
		if _, err := p.wait(t.Context(), 1<<20); err != nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("the next reader has its turn after %v, with %v", time.Since(began), err)
		}
	})
}
