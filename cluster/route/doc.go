// Package route is the way from a partition, or a consumer group, to the node that answers for it.
//
// You are here: below the node, which says what it has here (Host), above the table of calls
// (cluster/calls), the link and who is there (cluster/liveness). It knows neither Raft nor disks:
// a replica on this node is something that knows its leader (Guide) and answers for its records
// (Records).
//
//	caller.go   a call to a node: directly, or through a third one where a link is cut
//	router.go   who leads a partition, what others said of it, and trying until one answers
//	records.go  what clients ask of a partition: at the replica here, or at its leader's node
//	append.go   records on their way there, alone or one behind the other
//	groups.go   what clients ask of a consumer group's coordinator
//
// A request waits for a leader holdLeaderless, 1.5 s, and is tried again only while surely
// nothing was done.
//
// Lock order: Router.mu is the only one, and nothing is called while it is held.
package route
