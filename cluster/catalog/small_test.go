package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// No two producers get one id, also where a block may have been taken and nobody knows.
func TestAProducerIDIsGivenOnce(t *testing.T) {
	var next atomic.Int64
	ids := newProducerIDs(func(context.Context) (int64, error) {
		first := next.Add(producerIDBlock) - producerIDBlock
		if first == producerIDBlock {
			return 0, outcome.ErrUnknownFate
		}
		return first, nil
	}, func() int64 { return 0 })
	var mu sync.Mutex
	given := map[int64]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range producerIDBlock / 2 {
				id, err := ids.take(t.Context(), t.Context())
				mu.Lock()
				if err != nil || given[id] {
					t.Errorf("%d, %v", id, err)
				}
				given[id] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

func TestAProducerIDIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, stop := context.WithCancel(t.Context())
		ids := newProducerIDs(func(ctx context.Context) (int64, error) {
			<-ctx.Done()
			return 0, outcome.ErrNoLeader
		}, func() int64 { return 0 })
		first, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 3)
		take := func(ctx context.Context) {
			_, err := ids.take(ctx, life)
			answers <- err
		}
		go take(first)
		synctest.Wait()
		second, cancelSecond := context.WithTimeout(t.Context(), time.Second)
		defer cancelSecond()
		go take(second)
		if err := <-answers; outcome.Code(err) != outcome.ErrTimeout {
			t.Errorf("behind another: %v", err)
		}
		go take(t.Context())
		synctest.Wait()
		stop()
		if err := <-answers; outcome.Code(err) != outcome.ErrShuttingDown {
			t.Errorf("while the node stops: %v", err)
		}
		cancel()
		if err := <-answers; outcome.Code(err) != outcome.ErrNoLeader {
			t.Errorf("the first: %v", err)
		}
	})
}

// The catalog is brought up to date at most once a second, however many ask.
func TestTheCatalogIsFreshForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		var err error
		f := newFreshness(func(context.Context) error { asked++; return err })
		for range 3 {
			if !f.refresh(t.Context()) {
				t.Error("it is not fresh")
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(freshFor)
		err = outcome.ErrNoLeader
		for again := range 2 {
			if f.refresh(t.Context()) || asked != 2+again {
				t.Errorf("without a leader it is fresh, asked %d times", asked)
			}
		}
	})
}

// kept are notes in memory.
type kept map[string]bool

func (k kept) Noted(name string) (bool, error) { return k[name], nil }
func (k kept) Note(name string) error          { k[name] = true; return nil }

// The topics of the configuration are created once, as far as they can be; those that need more
// nodes are tried for ever, and keep the node from nothing.
func TestTheTopicsOfTheConfigurationAreCreatedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := kept{}
		results := map[string]error{"there": outcome.ErrTopicExists, "wrong": outcome.ErrInvalidTopicName, "late": outcome.ErrTimeout, "large": outcome.ErrInvalidReplicationFactor, "soon": outcome.ErrNoLeader}
		var mu sync.Mutex
		created := map[string]int{}
		set := func(name string, err error) {
			mu.Lock()
			defer mu.Unlock()
			results[name] = err
		}
		topics := &InitialTopics{
			Formed: func() bool { return true }, Notes: notes, Logger: slog.New(slog.DiscardHandler),
			Create: func(_ context.Context, spec fsm.TopicSpec) error {
				mu.Lock()
				defer mu.Unlock()
				created[spec.Name]++
				if err := results[spec.Name]; err != nil {
					return fmt.Errorf("%w: %s", err, spec.Name)
				}
				return nil
			},
		}
		for _, name := range []string{"new", "there", "wrong", "late", "large", "soon"} {
			topics.Topics = append(topics.Topics, fsm.TopicSpec{Name: name})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- topics.Run(ctx) }()
		time.Sleep(time.Minute)
		if !topics.Pending() {
			t.Error("one may be there soon, and nothing is waited for")
		}
		set("soon", nil)
		time.Sleep(time.Second)
		if topics.Pending() {
			t.Error("it waits for a topic that needs more nodes")
		}
		cancel()
		if err := <-ended; err != nil || len(notes) > 0 {
			t.Errorf("%v, %v", err, notes)
		}
		for name, once := range map[string]bool{"new": true, "there": true, "wrong": true, "late": true, "large": false} {
			if n := created[name]; (n == 1) != once {
				t.Errorf("%s was tried %d times", name, n)
			}
		}
		clear(created)
		// As after a restart: those that are there already are left as they are.
		go func() { ended <- topics.Run(t.Context()) }()
		time.Sleep(time.Second)
		set("large", nil)
		if err := <-ended; err != nil || !notes[initialDone] {
			t.Errorf("%v, %v", err, notes)
		}
		clear(created)
		if err := topics.Run(t.Context()); err != nil || len(created) > 0 {
			t.Errorf("once more: %v, %v", err, created)
		}
	})
}

func TestNodesThatJoinCreateNoTopics(t *testing.T) {
	topics := &InitialTopics{
		Topics: []fsm.TopicSpec{{Name: "a"}}, Formed: func() bool { return false }, Notes: kept{},
		Create: func(context.Context, fsm.TopicSpec) error { return errors.New("created") },
	}
	if !topics.Pending() {
		t.Error("before it is known")
	}
	if err := topics.Run(t.Context()); err != nil || topics.Pending() {
		t.Errorf("%v, pending: %v", err, topics.Pending())
	}
}
