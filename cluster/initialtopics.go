package cluster

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// createInitialTopics creates the topics of the configuration when this node's
// cluster is new. Topics that are there are left as they are.
func (n *Node) createInitialTopics() {
	defer n.initialTopicsTried()
	n.idMu.Lock()
	forming := n.id.Forming
	n.idMu.Unlock()
	if forming == nil || len(n.cfg.InitialTopics) == 0 {
		return
	}
	done := n.dir.join("initial-topics")
	told := map[string]string{} // what the log said last of each topic
	left := n.cfg.InitialTopics
	for len(left) > 0 && n.ctx.Err() == nil {
		if ok, err := fileExists(filepath.Clean(done)); err == nil && ok {
			return
		}
		var again []fsm.TopicSpec
		pause := time.Second // more nodes are waited for, which may never come
		for _, spec := range left {
			ctx, cancel := context.WithTimeout(n.ctx, 2*callTimeout)
			err := n.CreateTopic(ctx, spec, false)
			cancel()
			level := slog.LevelWarn
			switch outcome.Code(err) {
			case 0, outcome.ErrTopicExists, outcome.ErrTimeout:
				continue
			case outcome.ErrInvalidTopicName, outcome.ErrInvalidPartitions, outcome.ErrInvalidConfig:
				n.logger.Error("cannot create a topic of --topics", "topic", spec.Name, "error", err)
				continue
			case outcome.ErrInvalidReplicationFactor:
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
		if err := n.lost(writeFileSync(done, nil)); err != nil {
			n.logger.Warn("cannot note that the initial topics were created", "error", err)
		}
	}
}

func (n *Node) initialTopicsTried() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.creating = false
}
