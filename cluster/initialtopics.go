package cluster

import (
	"context"
	"path/filepath"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
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
	for _, spec := range n.cfg.InitialTopics {
		for n.ctx.Err() == nil {
			if ok, err := fileExists(filepath.Clean(done)); err == nil && ok {
				return
			}
			ctx, cancel := context.WithTimeout(n.ctx, 2*callTimeout)
			err := n.CreateTopic(ctx, spec, false)
			cancel()
			code := fsm.Code(err)
			if err == nil || code == fsm.ErrTopicExists || code == fsm.ErrTimeout {
				break
			}
			switch code {
			case fsm.ErrInvalidTopicName, fsm.ErrInvalidPartitions, fsm.ErrInvalidConfig:
				n.logger.Error("cannot create a topic of --topics", "topic", spec.Name, "error", err)
			case fsm.ErrInvalidReplicationFactor:
				n.logger.Warn("cannot create a topic of --topics yet", "topic", spec.Name, "error", err)
				n.initialTopicsTried() // more nodes may never come
				n.pause(time.Second)
				continue
			default:
				n.logger.Info("cannot create a topic of --topics yet", "topic", spec.Name, "error", err)
				n.pause(100 * time.Millisecond)
				continue
			}
			break
		}
	}
	if n.ctx.Err() == nil {
		if err := writeFileSync(done, nil); err != nil {
			n.logger.Warn("cannot note that the initial topics were created", "error", err)
		}
	}
}

func (n *Node) initialTopicsTried() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.creating = false
}
