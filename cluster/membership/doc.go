// Package membership tells which nodes are there: hashicorp/memberlist (SWIM
// gossip) as a list of members and a tick when it changed.
//
// You are here: below package cluster, above nothing but memberlist. The package
// carries what a node says about itself (its identity, addresses, cluster) to all
// others, notices who left and who failed, and finds the others again after a
// restart. It suggests and never decides: who belongs to the cluster is in the
// catalog, and whether a node that gossip calls failed is treated as dead is for package
// cluster to judge. Nodes of another cluster are never listed, whatever gossip brings.
//
//	gossip.go  Config, Start, Members, Update, Leave, Close
//	events.go  memberlist's callbacks: what came, what is kept out
//	join.go    finding others: retries, and islands that must meet again
//	keys.go    the keys that gossip is encrypted with, and how they are replaced
//	meta.go    what a node says about itself, in at most 512 bytes
//	hints.go   the file that remembers where others were
//	logs.go    memberlist's log lines as slog records
//
// Locks: Gossip.updating comes first, and is held while memberlist tells the others; then
// memberlist's own; then Gossip.mu, under which nothing is called, taken or waited for. keyring.mu
// is taken alone, and memberlist's mutex of its keyring under it.
package membership
