// Package transactions is the replicated state of transactional ids: of each its producer id and
// epoch, and what its transaction touches and how far it is.
//
// You are here: one State is one shard of the transactional ids as one replica has it. Commands
// change it (Changes collects what a command does, Encode writes it, ParseCommand reads it,
// State.Do applies it), Snapshot and RestoreState carry it from one replica to another. Package
// transaction decides what is to be changed, keeps clocks and has markers written; package cluster
// replicates the commands.
//
// Like all of fsm, nothing here reads a clock, a random source, the disk or the network, and
// nothing is started or waited for: times come in commands. The bytes of commands and snapshots are
// held by TestGoldenBytes: logs of earlier versions are full of them.
package transactions
