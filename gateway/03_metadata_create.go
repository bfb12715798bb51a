package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// maxCreating bounds the topics that are being created because somebody named
	// them; naming more begins to create them when they are asked for again.
	maxCreating = 64
	// createTimeout bounds one creation, rememberFailure how long its error is
	// told before it is tried again.
	createTimeout   = 30 * time.Second
	rememberFailure = 5 * time.Second
)

// topicMaker creates topics that were named and are not there, in the background.
type topicMaker struct {
	changes Changes
	unknown func() error // what to say of a topic that the catalog does not list
	enabled bool         // topics are created when they are named
	leaving context.Context
	run     func(f func()) // runs f beside
	log     *slog.Logger

	mu      locks.Mutex[topicMaker] // guards the rest; nothing is taken and nobody waits under it
	running int
	making  map[string]*making // also those that failed lately
}

type making struct {
	over time.Time // zero: still at it
	err  error
}

// missing says what to answer for a topic that the catalog does not list, and
// begins to create it where that is wanted and the client may.
func (t *topicMaker) missing(name string, mayCreate bool) error {
	if err := kafkaproto.CheckTopicName(name); err != nil {
		return err
	}
	if err := t.unknown(); !errors.Is(err, outcome.ErrUnknownTopicOrPartition) || !t.enabled || !mayCreate {
		return err
	}
	if err := kafkaproto.CheckNewTopicName(name); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.making[name]; m != nil {
		if m.over.IsZero() {
			return errTopicComing
		}
		if time.Since(m.over) < rememberFailure {
			return m.err
		}
	}
	if t.running >= maxCreating || t.leaving.Err() != nil {
		return errTopicComing
	}
	for old, m := range t.making {
		if !m.over.IsZero() && time.Since(m.over) >= rememberFailure {
			delete(t.making, old)
		}
	}
	t.running++
	t.making[name] = &making{}
	t.run(func() { t.make(name) })
	return errTopicComing
}

func (t *topicMaker) make(name string) {
	ctx, cancel := context.WithTimeout(t.leaving, createTimeout)
	defer cancel()
	var err error = outcome.ErrUnknown
	defer func() {
		v := recover()
		switch {
		case v != nil:
			t.log.Error("creating a topic on first use panicked", "topic", name, "panic", v)
		case err == nil:
			t.log.Info("topic created on first use", "topic", name)
		default:
			t.log.Warn("topic not created on first use", "topic", name, "error", err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.running--
		if err == nil {
			delete(t.making, name)
			return
		}
		*t.making[name] = making{over: time.Now(), err: err}
	}()
	err = t.changes.CreateTopic(ctx, fsm.TopicSpec{Name: name, Partitions: -1, ReplicationFactor: -1}, false)
	switch outcome.Code(err) {
	case outcome.ErrTopicExists, outcome.ErrTimeout:
		err = nil // somebody else was faster, or it is there and some partition has no leader yet
	}
}
