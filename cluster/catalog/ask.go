package catalog

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
)

const (
	// retryPause is the pause before the leader is looked for again. What the member here hears tells sooner.
	retryPause = 25 * time.Millisecond
	// makeKnownTimeout is longer than a commit takes to reach a node that is well, and short for who creates
	// a topic while one is not.
	makeKnownTimeout = 500 * time.Millisecond
)

// Kind is what a node asks another one's catalog.
type Kind uint8

// The kinds, with what they carry and what the answer is.
const (
	Apply            Kind = iota + 1 // fsm.CatalogCommand -> Reply
	CreateTopic                      // createTopicCall -> Reply
	CreatePartitions                 // createPartitionsCall -> Reply
	CreateShards                     // nothing -> Reply: the shards of consumer groups are there
	Administer                       // fsm.AdminRequest -> Reply
	Index                            // nothing -> Reply: the index that a confirmed leader has committed
	Known                            // index -> nothing, when the catalog of the answering node has come that far
	Membership                       // nothing -> 1 if the caller is in the cluster, 0 if it has left it
)

// Reply says at which index a change is in the catalog.
type Reply struct {
	Index fsm.Index `json:"index"`
	// FirstProducerID is set by an allocation of producer ids.
	FirstProducerID int64 `json:"first_producer_id,omitempty"`
}

// atLeader asks the group's leader, again as long as nothing happened, until ctx ends (10 s where it has no
// deadline); then it waits until the result is known here. Errors are the leader's, fsm.ErrNoLeader when ctx ends,
// fsm.ErrUnknownFate when it may have been done, fsm.ErrTimeout when it was and is not known here, and
// fsm.ErrShuttingDown.
func (c *Catalog) atLeader(ctx context.Context, kind Kind, payload []byte) (Reply, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*CallTimeout)
		defer cancel()
	}
	for {
		changed := c.Changed()
		reply, err := c.tryLeader(ctx, kind, payload)
		if err == nil {
			var at Reply
			if err := json.Unmarshal(reply, &at); err != nil {
				return Reply{}, fmt.Errorf("%w: malformed answer of the catalog's leader", fsm.ErrUnknown)
			}
			return at, c.machine.awaitIndex(ctx, at.Index)
		}
		if !fsm.NotAppended(err) {
			return Reply{}, err
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return Reply{}, fmt.Errorf("%w: the catalog: %w", fsm.ErrNoLeader, err)
		case <-c.cfg.Life.Done():
			return Reply{}, fsm.ErrShuttingDown
		}
	}
}

// tryLeader asks the leader that is known now, once.
func (c *Catalog) tryLeader(ctx context.Context, kind Kind, payload []byte) ([]byte, error) {
	m := c.Member()
	if m == nil {
		return nil, fsm.ErrNoLeader
	}
	leader, _ := m.Leader()
	if who, ok := c.cfg.Host.Elsewhere(leader, m.Voters()); ok {
		leader = who
	}
	switch leader {
	case "":
		return nil, fsm.ErrNoLeader
	case c.self:
		return c.Answer(ctx, c.self, kind, payload)
	default:
		return c.cfg.Host.Call(ctx, leader, kind, payload)
	}
}

// Change makes a change to the catalog and returns when it is known here. Errors are those of the change,
// fsm.ErrLevel while nodes run an older program, and those of atLeader.
func (c *Catalog) Change(ctx context.Context, command fsm.CatalogCommand) (Reply, error) {
	if err := c.View().CheckLevel(&command); err != nil {
		return Reply{}, err
	}
	return c.atLeader(ctx, Apply, command.Encode())
}

// ChangeForAll is Change for what is made once however often it is asked for, and returns when it is known here
// and at all nodes that are connected.
func (c *Catalog) ChangeForAll(ctx context.Context, command fsm.CatalogCommand) error {
	if err := c.View().CheckLevel(&command); err != nil {
		return err
	}
	return c.askForAll(ctx, Apply, command.Encode())
}

// askForAll has the leader make a change that is made once however often it is asked for, and returns when it
// is known here and at all nodes that are connected: whoever asked for it may turn to another gateway next.
func (c *Catalog) askForAll(ctx context.Context, kind Kind, payload []byte) error {
	for {
		at, err := c.atLeader(ctx, kind, payload)
		if fsm.Code(err) == fsm.ErrUnknownFate && ctx.Err() == nil {
			continue
		}
		if err == nil {
			c.makeKnown(ctx, at.Index)
		}
		return err
	}
}

// askJSON is askForAll with a call in JSON.
func (c *Catalog) askJSON(ctx context.Context, kind Kind, call any) error {
	payload, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("%w: %w", fsm.ErrUnknown, err)
	}
	return c.askForAll(ctx, kind, payload)
}

// makeKnown returns when all nodes that are connected know the catalog as it is at index. One that does not say so
// within makeKnownTimeout, paused or just dead, is not waited for: what is changed stays changed without it.
func (c *Catalog) makeKnown(ctx context.Context, index fsm.Index) {
	ctx, cancel := context.WithTimeout(ctx, makeKnownTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range c.View().Nodes() {
		identity := node.Identity()
		if identity == c.self || !c.cfg.Host.Connected(identity) {
			continue
		}
		wg.Go(func() {
			if _, err := c.cfg.Host.Call(ctx, identity, Known, binary.BigEndian.AppendUint64(nil, uint64(index))); err != nil {
				c.cfg.Logger.Debug("a node may not know a change of the catalog yet", "node", node.ID, "error", err)
			}
		})
	}
	wg.Wait()
}

// CatchUp returns when this node knows the catalog as it was, or newer, when the call began. Errors are those of
// atLeader.
func (c *Catalog) CatchUp(ctx context.Context) error {
	_, err := c.atLeader(ctx, Index, nil)
	return err
}
