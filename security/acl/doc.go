// Package acl says who may do what: access control lists by Kafka's model (KIP-11, KIP-290,
// KIP-679), as values.
//
// You are here: below the catalog's state machine, which keeps a Set, and the gateway, which asks
// it. The package knows no request and no connection, and nobody who logs in: a principal and a
// host are text.
//
//	words.go    types, patterns, operations, permissions, with the protocol's numbers
//	binding.go  one ACL, what it must keep to, and the filter that selects some
//	set.go      all ACLs: sorted, changed by copying
//	decide.go   may this principal do that? As Kafka's StandardAuthorizerData decides it.
package acl
