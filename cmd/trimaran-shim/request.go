package main

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// API keys that the proxy has to know (Kafka protocol guide).
const (
	apiProduce          = 0
	apiFetch            = 1
	apiListOffsets      = 2
	apiMetadata         = 3
	apiOffsetFetch      = 9
	apiFindCoordinator  = 10
	apiDescribeGroups   = 15
	apiListGroups       = 16
	apiSaslHandshake    = 17
	apiApiVersions      = 18
	apiInitProducerID   = 22
	apiOffsetForEpoch   = 23
	apiAddPartitions    = 24
	apiAddOffsets       = 25
	apiEndTxn           = 26
	apiWriteTxnMarkers  = 27
	apiTxnOffsetCommit  = 28
	apiDescribeAcls     = 29
	apiDescribeConfigs  = 32
	apiDescribeLogDirs  = 35
	apiSaslAuthenticate = 36
	apiListReassign     = 46
	apiDescribeQuotas   = 48
	apiDescribeScram    = 50
	apiDescribeCluster  = 60
	apiDescribeProducer = 61
	apiDescribeTxns     = 65
	apiListTxns         = 66
	apiDescribeTopics   = 75
)

// repeatable are the requests that change nothing, so that one without an
// answer may be sent again to another gateway. Metadata may create a topic, and
// creating it twice creates it once. What is not listed here is taken to change
// something.
var repeatable = map[int16]bool{
	apiFetch: true, apiListOffsets: true, apiMetadata: true, apiOffsetFetch: true,
	apiFindCoordinator: true, apiDescribeGroups: true, apiListGroups: true,
	apiApiVersions: true, apiOffsetForEpoch: true, apiDescribeAcls: true,
	apiDescribeConfigs: true, apiDescribeLogDirs: true, apiListReassign: true,
	apiDescribeQuotas: true, apiDescribeScram: true, apiDescribeCluster: true,
	apiDescribeProducer: true, apiDescribeTxns: true, apiListTxns: true, apiDescribeTopics: true,
}

// ofTransactions are the requests that change a transaction; InitProducerId does where it has a
// transactional id.
var ofTransactions = map[int16]bool{
	apiAddPartitions: true, apiAddOffsets: true, apiEndTxn: true, apiWriteTxnMarkers: true, apiTxnOffsetCommit: true,
}

// minRequest is the smallest size that a request may claim: key, version and
// correlation id.
const minRequest = 8

// request is one message of a client on its way.
type request struct {
	frame       []byte // with its size prefix
	key         int16
	version     int16
	correlation int32
	answered    bool // an answer will come; false for Produce with acks 0
	// transactional: it is not for a gateway any more once the client has closed. The client will
	// have asked by another connection, and before KIP-890 a request does not say whether it is of
	// the present transaction or of the former one. InitProducerId would fence who has the
	// transactional id by now.
	transactional bool
	losses        int  // gateways that were lost while this one waited longest
	raw           bool // a message of a SASL mechanism's, without key, version and correlation id
	own           bool // the shim's own: its answer is not the client's
	mechanism     string
}

// binds reports whether the request ties what follows to this gateway
// connection: another gateway does not know who authenticated.
func (r *request) binds() bool { return r.key == apiSaslHandshake || r.key == apiSaslAuthenticate }

var errRequest = errors.New("malformed request")

// parseRequest reads the head of a request; frame includes the size prefix. Of a
// Produce that is too odd to tell, it is taken that an answer will come: the
// gateway then answers or closes, and says why.
func parseRequest(frame []byte) (*request, error) {
	const head = 4 + minRequest
	if len(frame) < head {
		return nil, fmt.Errorf("%w: %d bytes", errRequest, len(frame))
	}
	r := &request{
		frame:       frame,
		key:         int16(binary.BigEndian.Uint16(frame[4:])),
		version:     int16(binary.BigEndian.Uint16(frame[6:])),
		correlation: int32(binary.BigEndian.Uint32(frame[8:])),
		answered:    true,
	}
	r.transactional = ofTransactions[r.key]
	switch r.key {
	case apiInitProducerID:
		r.transactional = initsTransactions(frame[head:], r.version)
	case apiProduce:
		acks, transactional, ok := produceHead(frame[head:], r.version)
		r.answered, r.transactional = !ok || acks != 0, transactional
	case apiSaslHandshake:
		r.mechanism = handshakeMechanism(frame)
	}
	return r, nil
}

// produceHead finds the acks field of a Produce request, and whether it has a transactional id; b
// begins at the client id of the header. From version 3 on a transactional id stands before acks,
// from 9 on header and body are in flexible form (KIP-482), but for the client id.
func produceHead(b []byte, version int16) (acks int16, transactional, ok bool) {
	p := &head{b: b}
	p.nullableString()
	switch {
	case version >= 9:
		transactional = p.compactString()
	case version >= 3:
		transactional = p.nullableString()
	}
	acks = p.int16()
	return acks, transactional && !p.bad, !p.bad
}

// initsTransactions reports whether an InitProducerId has a transactional id, with which the body
// begins; b is as for produceHead. From version 2 on it is in flexible form.
func initsTransactions(b []byte, version int16) bool {
	p := &head{b: b}
	p.nullableString()
	if version >= 2 {
		return p.compactString() && !p.bad
	}
	return p.nullableString() && !p.bad
}

// head reads a request from its beginning. After the first thing that does not
// fit, bad is set and all else is 0.
type head struct {
	b   []byte
	bad bool
}

func (p *head) skip(n uint64) {
	if p.bad = p.bad || n > uint64(len(p.b)); !p.bad {
		p.b = p.b[n:]
	}
}

func (p *head) int16() int16 {
	if p.bad = p.bad || len(p.b) < 2; p.bad {
		return 0
	}
	v := int16(binary.BigEndian.Uint16(p.b))
	p.b = p.b[2:]
	return v
}

func (p *head) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if p.bad = p.bad || n <= 0; p.bad {
		return 0
	}
	p.b = p.b[n:]
	return v
}

// compactString skips a flexible header's tags and the string behind them, and reports whether
// there is one.
func (p *head) compactString() bool {
	for tags := p.uvarint(); tags > 0 && !p.bad; tags-- {
		p.uvarint() // its number
		p.skip(p.uvarint())
	}
	n := p.uvarint() // length plus one, 0 for null
	if n > 0 {
		p.skip(n - 1)
	}
	return n > 0
}

// nullableString skips one and reports whether there is one.
func (p *head) nullableString() bool {
	n := p.int16()
	switch {
	case n >= 0:
		p.skip(uint64(n))
	case n < -1:
		p.bad = true
	}
	return n >= 0
}
