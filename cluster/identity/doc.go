// Package identity is who a node is, for ever: its data directory, which one process uses at a
// time, and node.json in it, the file with the node's name, its eight random digits, the cluster
// that it belongs to and the one that it has agreed to form.
//
// You are here: below package cluster and cluster/formation, above the file system
// (cluster/raftlog/vfs). The package opens nothing else in the data directory and knows no other
// node; it asks where other processes say that they have the same identity, and has them prove it.
//
//	dir.go       the data directory and its lock; what must be there beside node.json
//	file.go      node.json
//	identity.go  Identity, what the node is now: read by everybody, changed in one step on disk
//	recovered.go a cluster that was recovered without some of its nodes, and has another id since
//	proof.go     how a process proves that it has the data directory
//	twin.go      a data directory that was copied makes two nodes of one identity
//
// Locks: Identity.changing is the only one. It is held while node.json is written and synced, and
// readers do not take it.
package identity
