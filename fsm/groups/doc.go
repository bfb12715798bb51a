// Package groups is the replicated state of consumer groups: committed offsets, and of each group
// its generation, members, subscriptions and assignments.
//
// You are here: one State is one shard of the groups as one replica has it. Commands change it
// (Changes collects what a command does, Encode writes it, ParseCommand reads it, State.Do applies
// it), Snapshot and RestoreState carry it from one replica to another. Package coordinator decides
// what is to be changed, keeps clocks and who waits; package cluster replicates the commands.
//
// Like all of fsm, nothing here reads a clock, a random source, the disk or the network, and
// nothing is started or waited for: times come in commands. The bytes of commands and snapshots are
// held by TestGoldenBytes: logs of earlier versions are full of them.
package groups
