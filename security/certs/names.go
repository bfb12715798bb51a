package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A node's certificate has the URI trimaran://node/<node id> among its subject alternative names.
const (
	nodeScheme = "trimaran"
	nodeHost   = "node"
	// maxNodeID bounds a node id, as the catalog does.
	maxNodeID = 63
)

// ErrName says that what a certificate says of its node cannot be.
var ErrName = errors.New("certificate with a wrong node name")

// NodeURI is what a certificate of that node has in it.
func NodeURI(nodeID string) *url.URL {
	return &url.URL{Scheme: nodeScheme, Host: nodeHost, Path: "/" + nodeID}
}

// NodeOf gives the node id that a certificate names, "" if it names none. Two of them, or one that
// no node can have, are an error, which is an ErrName. URIs of other schemes mean nothing here.
func NodeOf(cert *x509.Certificate) (string, error) {
	found := ""
	for _, u := range cert.URIs {
		if !strings.EqualFold(u.Scheme, nodeScheme) {
			continue
		}
		id := strings.TrimPrefix(u.Path, "/")
		if !validNodeID(id) || u.String() != NodeURI(id).String() {
			return "", fmt.Errorf("%w: %.100q, want trimaran://node/<node id>", ErrName, u.String())
		}
		if found != "" {
			return "", fmt.Errorf("%w: it names two nodes, %s and %s", ErrName, found, id)
		}
		found = id
	}
	return found, nil
}

// validNodeID holds what fsm.CheckNodeID does: a-z, 0-9 and '-', at most 63 of them.
func validNodeID(id string) bool {
	if id == "" || len(id) > maxNodeID {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
