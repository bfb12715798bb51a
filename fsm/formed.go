package fsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/outcome"
)

// This file says who forms a Raft group.
//
// A group is formed once: whoever of the nodes that it was created on opens it first, and each of
// the others when it does, begins with the same configuration (Raft's entry 1 of term 1; invariant
// 7 of the log). Those nodes are meant by identity. A node that comes later under the name of one
// that has left is somebody else, has never been in the group and must not form it: alone in the
// list it would elect itself beside the leader that there is.
//
// Commands name nodes. Whom a name means is decided when the creation is applied, in the order of
// the catalog's log, so all replicas decide alike. Up to levelVoters that is not in snapshots, and
// who began from one forms none of the groups in it: what is in a snapshot was formed before, but
// for a group all of whose nodes ended in the moment in which it was created.

// levelVoters is the level from which on voters are part of the catalog.
const levelVoters = 3

// toForm gives new partitions with the voters that their groups are to be formed with. All of
// their nodes are registered.
func (t *Topics) toForm(partitions []Partition) []Partition {
	partitions = slices.Clone(partitions)
	for i := range partitions {
		partitions[i].Voters = t.identities(partitions[i].Bootstrap)
	}
	return partitions
}

func (t *Topics) identities(ids []NodeID) []string {
	identities := make([]string, len(ids))
	for i, id := range ids {
		node, _ := t.Node(id)
		identities[i] = node.Identity()
	}
	return identities
}

// withProvenVoters gives every partition its voters from its names alone, as far as these prove
// whom they mean: replicas that do not know when which node was registered must come to the same.
//
// A node does not leave the cluster while it holds a replica. So where a partition is on the nodes
// that it was created on and nobody is leaving, either it has never moved and the names mean who
// they meant then, or all moves are settled, so that all of its replicas are members of a group
// that they did not form and have its log. Everything else has moved, and moves are the work of a
// group's leader: it has been formed. That holds since a node registers its new program only after
// it has opened what it holds: of what was created before, nothing is left to be formed.
func (t *Topics) withProvenVoters() *Topics {
	prove := func(p *Partition) {
		p.Voters = nil
		if len(p.Leaving) == 0 && slices.Equal(p.Replicas, p.Bootstrap) {
			p.Voters = t.identities(p.Replicas)
		}
	}
	next := t.cloneTopics()
	for i, topic := range next.all {
		topic = changePartitions(topic, prove)
		next.all[i], next.byName[topic.Name], next.byID[topic.ID], next.byMetric[metricName(topic.Name)] = topic, topic, topic, topic
	}
	next.groups = changePartitions(t.groups, prove)
	return next
}

// withoutVoters gives the topics as they are known before levelVoters; nil stays nil.
func withoutVoters(topics []*Topic) []*Topic {
	topics = slices.Clone(topics)
	for i := range topics {
		topics[i] = changePartitions(topics[i], func(p *Partition) { p.Voters = nil })
	}
	return topics
}

func changePartitions(topic *Topic, change func(*Partition)) *Topic {
	if topic == nil {
		return nil
	}
	changed := *topic
	changed.Partitions = slices.Clone(topic.Partitions)
	for i := range changed.Partitions {
		change(&changed.Partitions[i])
	}
	return &changed
}

// checkNoVoters checks a partition of a command.
func (p *Partition) checkNoVoters() error {
	if p.Voters != nil {
		return fmt.Errorf("%w: who forms a group is not for a command to say", outcome.ErrInvalidAssignment)
	}
	return nil
}

// checkVoters checks a partition of a snapshot.
func (p *Partition) checkVoters() error {
	if p.Voters == nil {
		return nil
	}
	named := func(id NodeID, identity string) bool {
		incarnation, ok := strings.CutPrefix(identity, string(id)+".")
		return ok && Node{ID: id, Incarnation: incarnation}.check() == nil
	}
	if !slices.EqualFunc(p.Bootstrap, p.Voters, named) {
		return fmt.Errorf("it was created on %q and is formed with %q", p.Bootstrap, p.Voters)
	}
	return nil
}

// CheckName says whether a node may be registered now, as far as its name is concerned. Programs
// that do not know levelVoters take who has a name for who had it when a group was created. So
// until all know it, nobody gets the name of a node that has left if a group was created on that
// one. The error is ErrInvalidConfig.
func (t *Topics) CheckName(id NodeID) error {
	if t.FeatureLevel() >= levelVoters || t.isRegistered(id) {
		return nil
	}
	for _, topic := range t.Placed() {
		for i := range topic.Partitions {
			if slices.Contains(topic.Partitions[i].Bootstrap, id) {
				return fmt.Errorf("%w: the name %s was that of a node that has left, and %s-%d was created on it; it can be used again when all nodes run this program (level %d, the cluster is at %d)",
					outcome.ErrInvalidConfig, id, topic.Name, i, levelVoters, t.FeatureLevel())
			}
		}
	}
	return nil
}
