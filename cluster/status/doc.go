// Package status is what an operator, a load balancer and monitoring are told of a cluster.
//
// You are here: below the node, which says what runs here (Here); above the table of calls
// (cluster/calls), by which other nodes are asked, and who is there (cluster/liveness). It looks
// and changes nothing: what is amiss is mended elsewhere, and this package knows neither disks nor
// how groups are run.
//
//	here.go     what is seen of this node
//	health.go   what is offline or short of replicas, and whether clients are served here
//	report.go   what this node says of its replicas when it is asked
//	status.go   the reports of all nodes as one picture
//	check.go    whether the replicas of a partition have the same on their disks
//	metrics.go  the gauges of this node
//
// Locks: there is none. All state is that of those who are asked.
package status
