package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"
)

// patient is a store that is asked again where it fails: attempts times, with a pause that doubles.
// What another attempt cannot change is not tried again.
type patient struct {
	store   Store
	backoff func(ctx context.Context, try int) error // waits before another try, from 1
	// repeats: a list is told as it comes, and anew from another attempt, and takes no memory.
	repeats bool
}

const (
	attempts = 7
	// attemptTimeout is the time that an answer has to come, with all its bytes.
	attemptTimeout = 5 * time.Minute
	firstPause     = 200 * time.Millisecond
	longestPause   = 10 * time.Second
	// maxListed bounds the memory that a list takes. It is room for 64 TiB in objects of 16 MiB.
	maxListed = 4 << 20
)

// wait pauses before another try; some of it is chance, so that those who failed together do not
// come together again.
func wait(ctx context.Context, try int) error {
	pause := min(firstPause<<min(try-1, 10), longestPause)
	timer := time.NewTimer(pause/2 + rand.N(pause/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// final says whether another attempt would be in vain.
func final(err error) bool {
	for _, known := range []error{ErrExists, ErrNotFound, ErrFull, errTooLarge, errDenied, fs.ErrInvalid, fs.ErrPermission} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// errDenied says that the store does not let us.
var errDenied = errors.New("the store refuses")

func (p patient) do(ctx context.Context, what string, one func(context.Context) error) (tries int, err error) {
	for tries = 1; ; tries++ {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err = one(attempt)
		cancel()
		if err == nil || final(err) {
			return tries, err
		}
		if ctx.Err() != nil {
			return tries, ctx.Err()
		}
		if tries == attempts {
			return tries, fmt.Errorf("%s: %d times in vain: %w", what, tries, err)
		}
		if err := p.backoff(ctx, tries); err != nil {
			return tries, err
		}
	}
}

// Put implements Store. An attempt that seemed to fail may have stored the object: then it is
// there, with the same bytes or with others, which is for the caller to look at.
func (p patient) Put(ctx context.Context, key string, data []byte) error {
	_, err := p.do(ctx, "put "+key, func(ctx context.Context) error { return p.store.Put(ctx, key, data) })
	return err
}

// Get implements Store.
func (p patient) Get(ctx context.Context, key string, limit int64) (data []byte, err error) {
	_, err = p.do(ctx, "get "+key, func(ctx context.Context) (err error) {
		data, err = p.store.Get(ctx, key, limit)
		return err
	})
	return data, err
}

// Size implements Store.
func (p patient) Size(ctx context.Context, key string) (bytes int64, err error) {
	_, err = p.do(ctx, "size of "+key, func(ctx context.Context) (err error) {
		bytes, err = p.store.Size(ctx, key)
		return err
	})
	return bytes, err
}

// Same implements Store.
func (p patient) Same(ctx context.Context, key string, data []byte) (is bool, err error) {
	_, err = p.do(ctx, "compare "+key, func(ctx context.Context) (err error) {
		is, err = p.store.Same(ctx, key, data)
		return err
	})
	return is, err
}

// List implements Store. What is told is of one attempt that came to its end, unless repeats is
// set.
func (p patient) List(ctx context.Context, prefix string, each func(Stored) error) error {
	if p.repeats {
		_, err := p.do(ctx, "list "+prefix, func(ctx context.Context) error { return p.store.List(ctx, prefix, each) })
		return err
	}
	var all []Stored
	_, err := p.do(ctx, "list "+prefix, func(ctx context.Context) error {
		all = all[:0]
		return p.store.List(ctx, prefix, func(o Stored) error {
			if len(all) == maxListed {
				return fmt.Errorf("the list of %s %w: more than %d objects", prefix, errTooLarge, maxListed)
			}
			all = append(all, o)
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := each(o); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Store.
func (p patient) Delete(ctx context.Context, key string) error {
	_, err := p.do(ctx, "delete "+key, func(ctx context.Context) error { return p.store.Delete(ctx, key) })
	return err
}

func (p patient) String() string { return p.store.String() }
