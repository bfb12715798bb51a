package catalog

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

const (
	// initialDone is noted in the data directory when the topics of the configuration were created.
	initialDone = "initial-topics"
	// initialPause is the pause before a topic is tried again that needs more nodes, which may
	// never come.
	initialPause = time.Second
	// initialRetry is the pause before one is tried again for another reason.
	initialRetry = 100 * time.Millisecond
)

// Notes are kept in the data directory, across restarts (identity.Dir).
type Notes interface {
	Noted(name string) (bool, error)
	Note(name string) error
}

// InitialTopics creates the topics of the configuration when the cluster is new. Topics that are
// there are left as they are. Run belongs to one goroutine; Pending may be asked by any.
type InitialTopics struct {
	Topics []fsm.TopicSpec
	// Formed says that this node was there when its cluster was formed: only then are topics
	// created.
	Formed func() bool
	// Create creates a topic and returns when its partitions have leaders.
	Create func(context.Context, fsm.TopicSpec) error
	Notes  Notes
	Logger *slog.Logger

	tried atomic.Bool
	told  map[string]string // what the log said last of each topic
}

// Pending says that the topics are not all there yet, nor known to need more nodes than are there.
func (i *InitialTopics) Pending() bool { return len(i.Topics) > 0 && !i.tried.Load() }

// Run returns when nothing is left to do, or ctx ends. The error is that of noting that it was
// done, and no reason to do anything but to say so, unless it is a vfs.NotSynced.
func (i *InitialTopics) Run(ctx context.Context) error {
	defer i.tried.Store(true)
	if len(i.Topics) == 0 || !i.Formed() {
		return nil
	}
	i.told = map[string]string{}
	for left := i.Topics; ctx.Err() == nil; {
		if done, err := i.Notes.Noted(initialDone); err == nil && done {
			return nil
		}
		again, pause := i.try(ctx, left)
		if left = again; len(left) == 0 {
			break
		}
		if pause == initialPause {
			i.tried.Store(true)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return i.Notes.Note(initialDone)
}

// try tries once for each topic, and gives those that are to be tried again, and when.
func (i *InitialTopics) try(ctx context.Context, topics []fsm.TopicSpec) (again []fsm.TopicSpec, pause time.Duration) {
	pause = initialPause
	for _, spec := range topics {
		within, cancel := context.WithTimeout(ctx, 2*callTimeout)
		err := i.Create(within, spec)
		cancel()
		level := slog.LevelWarn
		switch outcome.Code(err) {
		case 0, outcome.ErrTopicExists, outcome.ErrTimeout:
			continue
		case outcome.ErrInvalidTopicName, outcome.ErrInvalidPartitions, outcome.ErrInvalidConfig:
			i.Logger.Error("cannot create a topic of --topics", "topic", spec.Name, "error", err)
			continue
		case outcome.ErrInvalidReplicationFactor:
		default:
			level, pause = slog.LevelInfo, initialRetry
		}
		again = append(again, spec)
		if i.told[spec.Name] != err.Error() {
			i.told[spec.Name] = err.Error()
			i.Logger.Log(ctx, level, "cannot create a topic of --topics yet", "topic", spec.Name, "error", err)
		}
	}
	return again, pause
}
