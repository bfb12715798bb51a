// Package catalog is one node's member of the catalog's Raft group, which knows topics, partitions,
// where their replicas are, nodes, and the cluster's feature level. Every node has one, as a voter
// or not, so that metadata is answered from memory everywhere.
//
// You are here: below package cluster, which opens the group's files and transport, and has the
// calls of other nodes answered by it; above the state machine (fsm.Catalog), the group
// (cluster/raftgroup) and placement (cluster/placement), and what nodes ask each other
// (cluster/calls). The package does not run replicas: it says where they should be, and package
// cluster sees to it. It reaches other nodes only through its Host.
//
// A change goes to the leader, wherever that is, and returns when it is known here:
//
//	catalog.go     Config, Host, Catalog: opening, the loop, what this node knows
//	machine.go     the replicated state: raft.FSM, and who waits for an index
//	ask.go         a change or a question goes to the leader, until it has an answer
//	answer.go      what the leader, or a member, answers
//	topics.go      topics, partitions and shards are created, changed, deleted
//	placer.go      which nodes get the replicas of what is created
//	administer.go  what an operator asks for: drain, decommission, replace, replication factor
//	security.go    users, ACLs and keys of tokens are changed
//	planner.go     the leader moves replicas, from nodes that are gone and to those that have fewer
//	members.go     the leader takes nodes into the group and out of it
//	departure.go   a node that was taken out of the cluster hears of it
//	featurelevel.go  nodes say what their program knows; the leader raises the cluster's level
//	producerids.go blocks of producer ids, given out one by one
//	fresh.go       the catalog is brought up to date for who must know that a topic is gone
//	initial.go     the topics of the configuration
//
// Locks: the machine's guards the replicated state and is held for the time of a copy in memory;
// nothing is called and no lock taken under it. Turns (who places replicas, who gives out producer
// ids, who brings the catalog up to date) are channels that can be waited for with a context, and
// may be held across calls to other nodes; only callers of the same kind wait for them.
package catalog
