// Package liveness is the one answer to "who is there?". Gossip suggests, connections answer.
//
// You are here: above the link between nodes and gossip, whose two answers it puts together,
// below everything that places replicas, counts a majority, gives leadership away or tells a
// client where to go. It opens no connection and decides nothing: it says who is reached
// (Connected, Here), whether a majority is (Majority…), what this node can say of its way to
// another (Reached, Unheard, CutOff), and where nodes listen (Resolve).
//
// Gossip takes seconds to miss a node that has died, and to believe one that is back. It is read
// for what nodes say of themselves, addresses above all. Every node keeps a session with every
// registered one; it ends when the process does, or after a second without a sign of life. So
// whoever has to know who is there asks here and nowhere else.
//
// The answer is this node's own. That another one may reach a node is no help to what is done
// from here: the leader of a group decides for its group, that of the catalog for plans.
//
// Lock order: Nodes.mu is the only one, and nothing is called while it is held.
package liveness
