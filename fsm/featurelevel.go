package fsm

import (
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
)

// FeatureLevel is what this program knows of the replicated formats: the catalog's commands, what
// may stand in a partition's log, what nodes ask of each other on behalf of both. Whatever is added
// to them raises it by one, once per release, and takes effect only when the cluster has reached
// that level, so that every replica understands a log alike.
//
//	1  the first
//	2  replicas move, nodes have states; shards of consumer groups
//	3  groups are formed by identities; nodes that have left; a broker's configurations; empty lists
//	   in configurations; partition logs of format 2, which an older program cannot go back to;
//	   calls go through a third node where two do not reach each other
//	4  appends that follow each other before the first is answered (calls.AppendInLine);
//	   users, ACLs, keys of tokens
//	5  transactions: their batches and markers in partitions' logs, their coordinators and pending
//	   offsets in the shards of consumer groups
//	6  compaction: its decisions in partitions' logs, and segments of which records are gone; topics
//	   that are restored: where their logs begin, entries with batches of older leader epochs
//	7  a transaction may have begun while its coordinator has replicated nothing of it
//	8  tiers: what partitions' logs say of records in a store; remote.storage.enable=true
//	9  commits of transactions are held for a moment, while a backup looks how far logs are
const FeatureLevel = 9

// LevelTransactions is the level from which on transactions may begin.
const LevelTransactions = 5

// LevelCompaction is the level from which on partitions are compacted.
const LevelCompaction = 6

// LevelTransactionsAhead is the level from which on every coordinator of transactions asks the
// partitions of one that is decided whether the next has begun.
const LevelTransactionsAhead = 7

// LevelHolds is the level from which on every coordinator of transactions holds commits when asked.
const LevelHolds = 9

// RaiseFeatureLevel makes the cluster use what programs of that level know. It is refused while a
// registered node runs an older one, and there is no way back.
type RaiseFeatureLevel struct {
	FeatureLevel int `json:"level"`
}

// featureLevel is the one from which on the command may be used.
func (c *CatalogCommand) featureLevel() int {
	if c.enablesTier() { // also of a topic that is restored
		return LevelTiers
	}
	if c.EndRestore != nil || c.CreateTopic != nil && c.CreateTopic.Topic.Origin != "" {
		return LevelRestore
	}
	if c.AlterCredentials != nil || c.AlterACLs != nil || c.AlterTokens != nil {
		return 4
	}
	if c.AlterBrokerConfigs != nil {
		return 3
	}
	if c.Settle != nil && c.Settle.Replicas != nil {
		return levelVoters
	}
	if c.SetNodeState != nil || c.Reassign != nil || c.Settle != nil || c.CreateGroupShards != nil {
		return 2
	}
	return 1
}

// FeatureLevel is the one that the cluster has reached, 1 at first. A program that knows less must
// not go on.
func (t *Topics) FeatureLevel() int { return max(t.featureLevel, 1) }

// NextFeatureLevel is the highest level that every registered node's program knows.
func (t *Topics) NextFeatureLevel() int {
	if len(t.nodes) == 0 {
		return t.FeatureLevel()
	}
	lowest := t.nodes[0].featureLevel()
	for _, node := range t.nodes {
		lowest = min(lowest, node.featureLevel())
	}
	return max(lowest, t.FeatureLevel())
}

// featureLevel is what the node's program knows; one that has not said so knows the first.
func (n Node) featureLevel() int { return max(n.FeatureLevel, 1) }

// CheckFeatureLevel says whether the catalog's log may have the command now. The error is
// ErrFeatureLevel.
func (t *Topics) CheckFeatureLevel(c *CatalogCommand) error {
	if need := c.featureLevel(); need > t.FeatureLevel() {
		return fmt.Errorf("%w: this needs level %d on all nodes, and the cluster is at %d", outcome.ErrFeatureLevel, need, t.FeatureLevel())
	}
	return nil
}

// FeatureLevelComes says whether every registered node's program knows the command's level, so that
// the cluster is about to reach it, as in its first second; also while none is registered yet. The
// nodes that formed it say only then what they know: one that has not yet may know it.
func (t *Topics) FeatureLevelComes(c *CatalogCommand) bool {
	need := max(c.featureLevel(), t.FeatureLevel())
	return !slices.ContainsFunc(t.nodes, func(n Node) bool { return n.FeatureLevel != 0 && n.FeatureLevel < need })
}

// CheckProposal says whether the catalog's leader may propose an encoded command, as far as that
// does not depend on what stands in the log before it. A leader proposes nothing that it does not
// know: what it finds in the log and does not know is then from a newer program.
func (t *Topics) CheckProposal(command []byte) error {
	c, err := decodeCatalogCommand(command)
	if err != nil {
		return err
	}
	if err := t.CheckFeatureLevel(&c); err != nil {
		return err
	}
	// Also below levelChecked: the command may come to stand behind the one that raises the level.
	if err := c.checkWords(); err != nil {
		return err
	}
	if c.RegisterNode != nil {
		return t.CheckName(c.RegisterNode.ID)
	}
	return nil
}

func (c *Catalog) raiseFeatureLevel(r *RaiseFeatureLevel) (*Topics, error) {
	switch {
	case r.FeatureLevel <= c.view.FeatureLevel():
		return c.view, nil
	case r.FeatureLevel > c.view.NextFeatureLevel():
		return nil, fmt.Errorf("%w: level %d is asked for, and nodes know %d", outcome.ErrFeatureLevel, r.FeatureLevel, c.view.NextFeatureLevel())
	}
	next := c.view
	if next.FeatureLevel() < levelVoters && r.FeatureLevel >= levelVoters {
		next = next.withProvenVoters()
	}
	raised := *next
	raised.featureLevel = r.FeatureLevel
	return &raised, nil
}
