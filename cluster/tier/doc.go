// Package tier is the store that old records of partitions lie in, so that replicas need not keep
// them: how they are laid out there, how they get there, and how they are read through a bounded
// cache on the node's disk.
//
// You are here: below the replicas (cluster/replica), which decide what goes to the store, have it
// named in the partition's log (fsm.TieredSegment), and read it by that name. This package knows
// record batches and objects. It does not know who leads, which segments are on disks, or what kind
// of store there is (Store).
//
// A segment is a range of offsets of a partition: objects of record batches, its pieces, and one
// that lists them, its index (index.go). FORMAT.md has the bytes. The name of a segment has the
// term of the leader that put it there and a random number, so no two attempts ever write the same
// object, and whoever leads knows which objects nobody will name any more (names.go). Each object
// is read back and compared before its segment is named (upload.go). What is read is checked by the
// SHA-256 in the index, and the index by that in the partition's log (read.go).
//
// cache.go keeps the last pieces in memory, and in files what memory has no room for and
// somebody is likely to ask for. Who reads old records waits for the store for a moment and is
// then told to come again, while what is fetched comes in (read.go). Nobody else waits for a
// store at all.
//
// # Locks
//
// cache.mu and Tier.mu are taken alone, and nothing under them; no file is touched and nothing
// waited for under either.
package tier
