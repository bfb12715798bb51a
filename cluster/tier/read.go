package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// flight is an object that is being fetched. What comes of it counts when done is closed.
type flight struct {
	began time.Time
	done  chan struct{}
	data  []byte
	err   error
}

// failure is an object that could not be fetched, and is not asked for until a time.
type failure struct {
	err   error
	pause time.Duration
	until time.Time
}

const (
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
	maxFailures  = 1024
	// maxFlights bounds the objects that are waited for at once, most of them in line for fetches.
	maxFlights = 256
	// Where an object, or anything at all, has not come for slow, whoever comes then is told at
	// once to come again, so that what a client reads beside it is not held up each time.
	slow = 2 * time.Second
	// maxIndexBytes bounds the indexes in memory.
	maxIndexBytes = 64 << 20
)

// object gives an object that has so many bytes and that sum: it is fetched if nobody fetches it
// already, and goes on being fetched when ctx has ended. into is called with what was fetched.
// waits: the caller wants it now; else nothing is waited for, and errors do not matter.
func (t *Tier) object(ctx context.Context, key string, size int64, sum [32]byte, into func(data []byte) error, waits bool) (data []byte, err error) {
	if waits {
		locks.MayWait("the store of the tier")
	}
	t.mu.Lock()
	f, flying := t.flights[key]
	failed, fails := t.failed[key]
	later := ErrLater
	if fails {
		later = errFailsLater
	}
	if t.closed {
		t.mu.Unlock()
		return nil, fmt.Errorf("%w: the node is stopping", ErrLater)
	}
	if !flying {
		if fails && time.Now().Before(failed.until) {
			t.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", later, failed.err)
		}
		if len(t.flights) >= maxFlights {
			t.mu.Unlock()
			return nil, fmt.Errorf("%w: %d objects are waited for already", ErrLater, maxFlights)
		}
		if !waits {
			select {
			case t.ahead <- struct{}{}:
			default:
				t.mu.Unlock()
				return nil, ErrLater // there is enough under way
			}
		}
		f = &flight{began: time.Now(), done: make(chan struct{})}
		t.flights[key] = f
		t.running.Add(1)
		go func() {
			defer t.running.Done()
			t.fly(f, key, size, sum, into)
			if !waits {
				<-t.ahead
			}
		}()
	}
	hangs := t.hangs(f, time.Now())
	t.mu.Unlock()
	if !waits {
		return nil, ErrLater
	}
	if hangs {
		if _, patient := ctx.Value(patientKey{}).(bool); !patient {
			select {
			case <-f.done:
				return f.data, f.err
			default:
				return nil, fmt.Errorf("%w: the store takes its time", later)
			}
		}
	}
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", later, ctx.Err())
	}
}

var errFailsLater = fmt.Errorf("%w: %w", ErrLater, ErrFails)

// hangs reports whether the store takes too long for an object, or for all that it was asked for
// last. mu is held.
func (t *Tier) hangs(f *flight, now time.Time) bool {
	if now.Sub(f.began) > slow {
		return true
	}
	if now.Sub(t.gave) <= slow {
		return false
	}
	for _, other := range t.flights {
		if now.Sub(other.began) > slow {
			return true
		}
	}
	return false
}

// patientKey marks a context whose owner waits as long as it lasts.
type patientKey struct{}

// Patient gives a context for who waits for a slow store as long as the context lasts.
func Patient(ctx context.Context) context.Context { return context.WithValue(ctx, patientKey{}, true) }

// fly fetches an object.
func (t *Tier) fly(f *flight, key string, size int64, sum [32]byte, into func([]byte) error) {
	ctx, cancel := context.WithTimeout(t.ctx, fetchTimeout)
	defer cancel()
	select {
	case t.fetches <- struct{}{}:
		f.data, f.err = t.fetch(ctx, key, size, sum)
		<-t.fetches
	case <-ctx.Done():
		f.err = ctx.Err()
	}
	if f.err == nil {
		f.err = into(f.data)
	}
	if f.err != nil {
		f.data = nil
		t.FetchErrors.Add(1)
	}
	t.mu.Lock()
	before := t.failed[key]
	delete(t.failed, key)
	if f.err == nil {
		t.gave = time.Now()
	} else {
		if len(t.failed) >= maxFailures {
			clear(t.failed)
		}
		pause := min(max(2*before.pause, firstPause), longestPause)
		t.failed[key] = failure{f.err, pause, time.Now().Add(pause)}
	}
	delete(t.flights, key)
	t.mu.Unlock()
	if f.err != nil {
		if t.ctx.Err() == nil {
			t.Logger.Warn("the store does not give an object", "store", t.Store.String(), "object", key, "error", f.err)
		}
		f.err = fmt.Errorf("%w: %w", errFailsLater, f.err)
	}
	close(f.done)
}

func (t *Tier) fetch(ctx context.Context, key string, size int64, sum [32]byte) ([]byte, error) {
	data, err := t.Store.Get(ctx, key, size)
	if err != nil {
		return nil, err
	}
	t.Fetched.Add(int64(len(data)))
	t.sums <- struct{}{}
	is := same(data, size, sum)
	<-t.sums
	if !is {
		return nil, fmt.Errorf("%s %w: %d bytes, and %d with another sum were put there", key, ErrDamaged, len(data), size)
	}
	return data, nil
}

// indexOf gives the index of a segment.
func (t *Tier) indexOf(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment) (*index, error) {
	key := indexKey(id, nameOf(s))
	t.mu.Lock()
	x := t.indexes[key]
	t.mu.Unlock()
	if x != nil {
		return x, nil
	}
	if s.IndexBytes > maxIndex {
		return nil, fmt.Errorf("%w: an index of %d bytes", ErrDamaged, s.IndexBytes)
	}
	data, err := t.object(ctx, key, s.IndexBytes, s.IndexSum, func(data []byte) error {
		x, err := parseIndex(data)
		if err == nil && !x.of(s) {
			err = fmt.Errorf("%w: the index of offsets %d to %d is of %d to %d", ErrDamaged, s.First, s.Next, x.first, x.next)
		}
		if err == nil {
			t.keep(key, x, int64(len(data)))
		}
		return err
	}, true)
	if err != nil {
		return nil, err
	}
	return parseIndex(data)
}

// keep keeps an index in memory.
func (t *Tier) keep(key string, x *index, bytes int64) {
	bytes = 2*bytes + 256
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.indexBytes+bytes > maxIndexBytes {
		clear(t.indexes)
		t.indexBytes = 0
	}
	if t.indexes[key] == nil {
		t.indexes[key] = x
		t.indexBytes += bytes
	}
}

// Read is what one read of the tier gave.
type Read struct {
	Batches []byte
	End     fsm.Offset // behind the batches, or behind what has none
	// Aborted are the transactions that were aborted and concern the batches, in the order of their
	// first offsets.
	Aborted []fsm.AbortedTransaction
}

// Read reads the batches of one piece from an offset on, about maxBytes of them and at least one,
// if there is one. segments are those of the partition's tier, one of which must have the offset.
// memory gives an empty slice with room for so many bytes. ctx bounds the wait for the store, but
// not for long if others have waited before, unless it is Patient. Errors wrap ErrLater, or are of
// an offset that no segment has.
func (t *Tier) Read(ctx context.Context, id fsm.PartitionID, segments []fsm.TieredSegment, from fsm.Offset, maxBytes int, memory func(n int) []byte) (r Read, err error) {
	s, ok := fsm.TieredAt(segments, from)
	if !ok {
		return r, fmt.Errorf("offset %d is not in the tier", from)
	}
	x, err := t.indexOf(ctx, id, s)
	if err != nil {
		return r, err
	}
	if maxBytes, err = t.pacer.wait(ctx, maxBytes); err != nil {
		return r, err
	}
	for i := x.at(from); i < len(x.pieces); i++ {
		hit, err := t.readPiece(ctx, id, s, x, i, from, maxBytes, memory, &r)
		if err != nil {
			return r, err
		}
		if hit {
			t.fetchAhead(id, segments, s, x, i)
		}
		if len(r.Batches) > 0 {
			r.Aborted = x.concerning(from, r.End)
			return r, nil
		}
	}
	r.End = s.Next
	return r, nil
}

// readPiece reads of one piece. hit: it was in the cache.
func (t *Tier) readPiece(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment, x *index, i int, from fsm.Offset, maxBytes int, memory func(int) []byte, r *Read) (hit bool, err error) {
	key := pieceKey(id, nameOf(s), i)
	for tries := 0; ; tries++ {
		p, data := t.cache.get(key)
		if hit = p != nil; !hit {
			if tries == 0 {
				t.Misses.Add(1)
			}
			if data, err = t.fetchPiece(ctx, key, x, i, true); err != nil {
				return false, err
			}
			places, err := placesOf(data, x.startOf(i), x.pieces[i].next)
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrLater, err)
			}
			p = &cached{key: key, size: int64(len(data)), places: places}
		} else if tries == 0 {
			t.Hits.Add(1)
		}
		ended, err := t.take(p, data, from, maxBytes, memory, r)
		if ended {
			t.cache.ended(key)
		}
		if err == nil || tries > 0 {
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrLater, err)
			}
			return hit, err
		}
		t.cache.drop(key, p) // its file is gone, or damaged
		r.Batches = nil
	}
}

// fetchPiece has a piece fetched into the cache.
func (t *Tier) fetchPiece(ctx context.Context, key string, x *index, i int, waits bool) ([]byte, error) {
	p := x.pieces[i]
	return t.object(ctx, key, p.bytes, p.sum, func(data []byte) error {
		places, err := placesOf(data, x.startOf(i), p.next)
		if err == nil {
			full := t.Full()
			if full {
				t.cache.giveUp()
			}
			t.cache.put(key, data, places, !full)
		}
		return err
	}, waits)
}

// take takes batches from an offset on out of a piece, whose data is nil if it is not in memory.
// ended: up to the piece's last one.
func (t *Tier) take(p *cached, data []byte, from fsm.Offset, maxBytes int, memory func(int) []byte, r *Read) (ended bool, err error) {
	pos, want := p.from(from), max(maxBytes, 0)+placeEvery
	var b []byte
	begin, end, to := -1, 0, fsm.Offset(0)
	for {
		// b is what was read from pos on, and begin to end of it is what was found.
		size := kafkaproto.BatchHeaderSize
		var batch kafkaproto.Batch
		if end+size <= len(b) {
			h, err := kafkaproto.ParseBatchHeader(b[end:])
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if size = h.Size(); end+size <= len(b) {
				if batch, err = kafkaproto.ParseBatch(b[end : end+size]); err != nil {
					return false, fmt.Errorf("%w: %w", ErrDamaged, err)
				}
			}
		}
		if end+size > len(b) {
			left := p.size - pos - int64(end)
			if left == 0 || begin >= 0 {
				break
			}
			if int64(size) > left {
				return false, fmt.Errorf("%w: a batch of %d bytes in %d", ErrDamaged, size, left)
			}
			pos, end = pos+int64(end), 0
			if b, err = t.cache.read(p, data, pos, max(want, size)); err != nil {
				return false, err
			}
			continue
		}
		next := fsm.Offset(batch.Header().NextOffset())
		if next <= from {
			end += size
			continue
		}
		if begin >= 0 && end-begin+size > maxBytes {
			break
		}
		// What is in memory is what its SHA-256 is of.
		if data == nil {
			err = batch.CheckCRC()
		}
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if begin < 0 {
			begin = end
		}
		end, to = end+size, next
		if end-begin >= maxBytes {
			break
		}
	}
	if begin >= 0 {
		r.Batches, r.End = append(memory(end-begin), b[begin:end]...), to
	}
	return pos+int64(end) == p.size, nil
}

// fetchAhead has the pieces fetched that come behind one, of the segments that follow as well.
func (t *Tier) fetchAhead(id fsm.PartitionID, segments []fsm.TieredSegment, s fsm.TieredSegment, x *index, i int) {
	at := slices.IndexFunc(segments, func(o fsm.TieredSegment) bool { return o.ID == s.ID })
	for range readAhead {
		for i++; i == len(x.pieces); i = 0 {
			if at++; at == 0 || at == len(segments) {
				return
			}
			s = segments[at]
			if x = t.indexAhead(id, s); x == nil {
				return // it is being fetched
			}
		}
		if key := pieceKey(id, nameOf(s), i); !t.cache.has(key) {
			_, _ = t.fetchPiece(t.ctx, key, x, i, false)
		}
	}
}

// indexAhead gives the index of a segment, or nil and has it fetched.
func (t *Tier) indexAhead(id fsm.PartitionID, s fsm.TieredSegment) *index {
	key := indexKey(id, nameOf(s))
	t.mu.Lock()
	x := t.indexes[key]
	t.mu.Unlock()
	if x == nil && s.IndexBytes <= maxIndex {
		_, _ = t.object(t.ctx, key, s.IndexBytes, s.IndexSum, func(data []byte) error {
			x, err := parseIndex(data)
			if err == nil && x.of(s) {
				t.keep(key, x, int64(len(data)))
			}
			return err
		}, false)
	}
	return x
}

// EpochAt gives the leader epoch of an offset that a segment has. Errors wrap ErrLater.
func (t *Tier) EpochAt(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment, offset fsm.Offset) (fsm.LeaderEpoch, error) {
	switch {
	case offset == s.First || s.FirstEpoch == s.LastEpoch:
		return s.FirstEpoch, nil
	case offset == s.Next-1:
		return s.LastEpoch, nil
	}
	x, err := t.indexOf(ctx, id, s)
	if err != nil {
		return -1, err
	}
	return x.epochAt(offset), nil
}

// ErrNoneThere says that a segment has no record of a time.
var ErrNoneThere = errors.New("no record is that new")

// Since gives an offset at or before the first record of a segment with a timestamp (ms) of at
// least that. The error is ErrNoneThere, or wraps ErrLater.
func (t *Tier) Since(ctx context.Context, id fsm.PartitionID, s fsm.TieredSegment, timestamp int64) (fsm.Offset, error) {
	if s.MaxTime < timestamp {
		return 0, ErrNoneThere
	}
	x, err := t.indexOf(ctx, id, s)
	if err != nil {
		return 0, err
	}
	for i, p := range x.pieces {
		if p.maxTime >= timestamp {
			return x.startOf(i), nil
		}
	}
	return 0, ErrNoneThere
}

// GiveUp lets go of all files of the cache: the disk has no room for what can be done without.
func (t *Tier) GiveUp() { t.cache.giveUp() }

// CacheSize gives the bytes of the files of the cache.
func (t *Tier) CacheSize() int64 { return t.cache.size() }
