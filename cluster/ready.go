package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Ready is nil when this node serves. The error says what is missing.
func (n *Node) Ready() error {
	if err := n.ending.serving(); err != nil {
		return err
	}
	switch {
	case n.ClusterID() == "":
		return errors.New("not in a cluster: " + n.formation.Waiting())
	case !n.catalog.CaughtUp():
		return errors.New("the catalog is not up to date yet")
	}
	if n.Topics().ClusterID() == "" {
		return errors.New("the cluster is being formed")
	}
	if n.initial.Pending() { // or a client's first use would create them with other settings
		return errors.New("the topics of --topics are being created")
	}
	// Only the start waits for all. A partition that loses its majority later, or a
	// replica that cannot be opened, must not take the whole node out of service.
	// Nor must one of a topic that has just been created: what was there at the start
	// has been up, and the catalog is known.
	if !n.served.Load() {
		if !n.health.CatalogLed() {
			return errors.New("the catalog has no leader that this node reaches")
		}
		if s := n.health.Shortcomings(); s.Starting > 0 {
			return fmt.Errorf("%d of %d replicas are not up yet", s.Starting, n.replicas.Count()+s.Closed)
		}
	}
	err := n.health.Serves()
	if elsewhere, cut := n.cutOff(); err == nil && elsewhere {
		err = cut
	}
	if err == nil {
		n.served.Store(true)
	}
	return err
}

// WaitReady returns when Ready is nil, or with the last answer when ctx ends.
func (n *Node) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-n.ending.failed:
			return n.Err()
		case <-tick.C:
		}
	}
}

// Serving is nil while this node serves clients as well as any. elsewhere says that others may
// serve them meanwhile: this node does not reach a majority of the catalog's voters, and those that
// it does not hear may be one. Nodes whose address refuses connections are not: nobody is served
// there.
func (n *Node) Serving() (elsewhere bool, err error) {
	if err := n.ending.serving(); err != nil {
		return false, err
	}
	if !n.served.Load() {
		return false, n.Ready()
	}
	return n.cutOff()
}

// cutOff is Serving for a node that has served.
func (n *Node) cutOff() (elsewhere bool, err error) {
	g := n.catalog.Member()
	if g == nil {
		return false, errors.New("the catalog is not open yet")
	}
	return n.nodes.CutOff(g.Voters())
}
