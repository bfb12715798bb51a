// Package backup keeps copies of a cluster's topics, offsets of groups, users and ACLs in a store,
// and brings them back.
//
// You are here: beside the cluster, not in it. The package asks a cluster for what any client may
// read and writes objects to a store (FORMAT.md says which). It knows neither nodes nor
// connections: whoever calls it brings a Source or a Target, the command line and the node the same
// one.
//
// The parts: stores.go says what a store is, file.go and s3.go are two, patient.go tries again;
// manifest.go has what a backup says of itself, repository.go where it lies; create.go, restore.go,
// verify.go, compacted.go and prune.go are what is done with it.
package backup
