// Package certs makes and reads the certificates that nodes know each other by, and those of
// clients: a CA of the cluster's own, certificates signed by it, files that are read again when
// they change.
//
// You are here: above crypto/x509, below whoever speaks TLS. The package opens no connection and
// knows nobody who does.
//
//	names.go the URI by which a certificate names a node
//	make.go  a CA, and certificates of nodes and clients
//	save.go  the files in which they are kept
//	files.go certificate, key and CA as files, read again when they change
//	tls.go   settings of TLS for clients and for who serves them, which follow the files
//
// Locks: Watched.mu is the only one. It is held while files are read, and readers of what was read
// do not take it.
package certs
