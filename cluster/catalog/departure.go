package catalog

import (
	"context"
	"time"
)

// A node that is taken out of the cluster hears of it as a member of the catalog's group, ends, and remembers it in its
// data directory. One that was away then, or cut off, is in that group no more when it is back, so that nobody tells it
// anything: it asks.

const (
	// leftTimeout bounds the question of one turn, all nodes asked together.
	leftTimeout = time.Second
	// askLeftEvery is the pause between two questions whether this node still belongs to the cluster.
	askLeftEvery = 5 * time.Second
)

// departure belongs to the goroutine that runs the catalog.
type departure struct {
	asked time.Time // when others were asked last
}

// WasCut says that a connection with another node has ended: this node may have been taken out of the cluster without
// hearing of it. It does not wait.
func (c *Catalog) WasCut() { c.cut.Store(true) }

// depart ends the node if it was taken out of the cluster.
func (c *Catalog) depart(ctx context.Context, d *departure) {
	if view := c.View(); view.ClusterID() != "" {
		if _, ok := view.Node(c.cfg.Self.ID); !ok {
			c.cfg.Host.Left()
		}
	}
	if !c.cut.Load() || time.Since(d.asked) <= askLeftEvery {
		return
	}
	c.cut.Store(false)
	d.asked = time.Now()
	switch left, known := c.hasLeft(ctx); {
	case left:
		c.cfg.Host.Left()
	case !known:
		c.cut.Store(true)
	}
}

// hasLeft asks the nodes that gossip names, of which the group's leader can tell; known says that it did. All that this
// node knows of the cluster may be gone: those that are there now it has never been connected with.
func (c *Catalog) hasLeft(ctx context.Context) (left, known bool) {
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	members := c.cfg.Host.Members()
	answers := make(chan []byte, len(members))
	for _, identity := range members {
		go func() {
			reply, err := c.cfg.Host.Call(ctx, identity, Membership, nil)
			if err != nil {
				reply = nil
			}
			answers <- reply
		}()
	}
	for range members {
		if reply := <-answers; len(reply) == 1 {
			left, known = left || reply[0] == 0, true
			cancel() // the others need not be waited for
		}
	}
	return left, known
}

// answerMembership tells a node whether it belongs to the cluster. Only a confirmed leader knows. Before the catalog
// says who the first nodes are, all that ask belong to it.
func (c *Catalog) answerMembership(ctx context.Context, identity string) ([]byte, error) {
	if _, err := c.index(ctx); err != nil {
		return nil, err
	}
	view := c.View()
	if view.ClusterID() == "" {
		return []byte{1}, nil
	}
	for _, node := range view.Nodes() {
		if node.Identity() == identity {
			return []byte{1}, nil
		}
	}
	return []byte{0}, nil
}
