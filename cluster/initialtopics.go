package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

// createInitialTopics creates the topics of the configuration when this node's
// cluster is new. Topics that are there are left as they are.
func (n *Node) createInitialTopics() {
	defer n.initialTopicsTried()
	if n.who.Forming() == nil || len(n.cfg.InitialTopics) == 0 {
		return
	}
	const done = "initial-topics"
	told := map[string]string{} // what the log said last of each topic
	left := n.cfg.InitialTopics
	for len(left) > 0 && n.ctx.Err() == nil {
		if ok, err := n.dir.Noted(done); err == nil && ok {
			return
		}
		var again []fsm.TopicSpec
		pause := time.Second // more nodes are waited for, which may never come
		for _, spec := range left {
			ctx, cancel := context.WithTimeout(n.ctx, 2*callTimeout)
			err := n.CreateTopic(ctx, spec, false)
			cancel()
			level := slog.LevelWarn
			switch fsm.Code(err) {
			case 0, fsm.ErrTopicExists, fsm.ErrTimeout:
				continue
			case fsm.ErrInvalidTopicName, fsm.ErrInvalidPartitions, fsm.ErrInvalidConfig:
				n.logger.Error("cannot create a topic of --topics", "topic", spec.Name, "error", err)
				continue
			case fsm.ErrInvalidReplicationFactor:
			default:
				level, pause = slog.LevelInfo, 100*time.Millisecond
			}
			again = append(again, spec)
			if told[spec.Name] != err.Error() {
				told[spec.Name] = err.Error()
				n.logger.Log(n.ctx, level, "cannot create a topic of --topics yet", "topic", spec.Name, "error", err)
			}
		}
		if left = again; len(left) == 0 {
			break
		}
		if pause == time.Second {
			n.initialTopicsTried()
		}
		n.pause(pause)
	}
	if n.ctx.Err() == nil {
		if err := n.lost(n.dir.Note(done)); err != nil {
			n.logger.Warn("cannot note that the initial topics were created", "error", err)
		}
	}
}

func (n *Node) initialTopicsTried() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.creating = false
}
