package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated fields Leader and Candidate, so they are carried as they are

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// Raft's messages in binary. Integers are big endian and of fixed width; byte
// strings are a uvarint of length+1 (0 is nil: hashicorp/raft tells nil and empty
// apart) and the bytes. Every message begins with the version of its layout; bytes
// behind what is known are ignored, so that a later version can add to the end.
//
// Data of entries is not copied, neither way: the encoder gives it out as a part
// of its own, the decoder lets entries point into the received body.

// Kinds of Raft requests on the wire, as hashicorp/raft's network transport numbers them.
const (
	rpcAppendEntries   uint8 = 0
	rpcRequestVote     uint8 = 1
	rpcInstallSnapshot uint8 = 2
	rpcTimeoutNow      uint8 = 3
	rpcRequestPreVote  uint8 = 4
)

const (
	raftLayout uint8 = 1
	// minEntry is the least that one entry takes: index, term, type, time, two nil strings.
	minEntry = 8 + 8 + 1 + 12 + 1 + 1
)

var errRaftMessage = errors.New("malformed raft message")

func encodeHeader(e *wire.Encoder, h raft.RPCHeader) {
	e.U8(raftLayout)
	e.U64(uint64(int64(h.ProtocolVersion)))
	e.Bytes(h.ID)
	e.Bytes(h.Addr)
}

func decodeHeader(d *wire.Decoder) raft.RPCHeader {
	if d.U8() != raftLayout {
		d.Bad = true
	}
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(int64(d.U64())), ID: d.Bytes(), Addr: d.Bytes()}
}

func errOf(d *wire.Decoder) error {
	if d.Bad {
		return errRaftMessage
	}
	return nil
}

func encodeAppendEntries(e *wire.Encoder, r *raft.AppendEntriesRequest) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.Bytes(r.Leader)
	e.U64(r.PrevLogEntry)
	e.U64(r.PrevLogTerm)
	e.U64(r.LeaderCommitIndex)
	e.U32(uint32(len(r.Entries)))
	for _, l := range r.Entries {
		e.U64(l.Index)
		e.U64(l.Term)
		e.U8(uint8(l.Type))
		// Seconds and nanoseconds apart: the zero time does not fit in nanoseconds alone.
		e.U64(uint64(l.AppendedAt.Unix()))
		e.U32(uint32(l.AppendedAt.Nanosecond()))
		e.Bytes(l.Extensions)
		e.Bytes(l.Data)
	}
}

func decodeAppendEntries(b []byte) (*raft.AppendEntriesRequest, error) {
	d := wire.Decoder{B: b}
	r := &raft.AppendEntriesRequest{RPCHeader: decodeHeader(&d)}
	r.Term = d.U64()
	r.Leader = d.Bytes()
	r.PrevLogEntry = d.U64()
	r.PrevLogTerm = d.U64()
	r.LeaderCommitIndex = d.U64()
	n := uint64(d.U32())
	if d.Bad || n*minEntry > uint64(len(d.B)) {
		return nil, errRaftMessage
	}
	if n == 0 {
		return r, nil
	}
	logs := make([]raft.Log, n)
	r.Entries = make([]*raft.Log, n)
	for i := range logs {
		l := &logs[i]
		r.Entries[i] = l
		l.Index = d.U64()
		l.Term = d.U64()
		l.Type = raft.LogType(d.U8())
		sec, nsec := int64(d.U64()), d.U32()
		if nsec >= uint32(time.Second) {
			return nil, errRaftMessage
		}
		if t := time.Unix(sec, int64(nsec)).UTC(); !t.IsZero() {
			l.AppendedAt = t
		}
		l.Extensions = d.Bytes()
		l.Data = d.Bytes()
	}
	return r, errOf(&d)
}

func encodeAppendEntriesResponse(e *wire.Encoder, r *raft.AppendEntriesResponse) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.U64(r.LastLog)
	e.Flag(r.Success)
	e.Flag(r.NoRetryBackoff)
}

func decodeAppendEntriesResponse(b []byte, r *raft.AppendEntriesResponse) error {
	d := wire.Decoder{B: b}
	*r = raft.AppendEntriesResponse{RPCHeader: decodeHeader(&d), Term: d.U64(), LastLog: d.U64(), Success: d.Flag(), NoRetryBackoff: d.Flag()}
	return errOf(&d)
}

func encodeRequestVote(e *wire.Encoder, r *raft.RequestVoteRequest) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.Bytes(r.Candidate)
	e.U64(r.LastLogIndex)
	e.U64(r.LastLogTerm)
	e.Flag(r.LeadershipTransfer)
}

func decodeRequestVote(b []byte) (*raft.RequestVoteRequest, error) {
	d := wire.Decoder{B: b}
	r := &raft.RequestVoteRequest{RPCHeader: decodeHeader(&d), Term: d.U64(), Candidate: d.Bytes(), LastLogIndex: d.U64(), LastLogTerm: d.U64(), LeadershipTransfer: d.Flag()}
	return r, errOf(&d)
}

func encodeRequestVoteResponse(e *wire.Encoder, r *raft.RequestVoteResponse) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.Bytes(r.Peers)
	e.Flag(r.Granted)
}

func decodeRequestVoteResponse(b []byte, r *raft.RequestVoteResponse) error {
	d := wire.Decoder{B: b}
	*r = raft.RequestVoteResponse{RPCHeader: decodeHeader(&d), Term: d.U64(), Peers: d.Bytes(), Granted: d.Flag()}
	return errOf(&d)
}

func encodeRequestPreVote(e *wire.Encoder, r *raft.RequestPreVoteRequest) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.U64(r.LastLogIndex)
	e.U64(r.LastLogTerm)
}

func decodeRequestPreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	d := wire.Decoder{B: b}
	r := &raft.RequestPreVoteRequest{RPCHeader: decodeHeader(&d), Term: d.U64(), LastLogIndex: d.U64(), LastLogTerm: d.U64()}
	return r, errOf(&d)
}

func encodeRequestPreVoteResponse(e *wire.Encoder, r *raft.RequestPreVoteResponse) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.Flag(r.Granted)
}

func decodeRequestPreVoteResponse(b []byte, r *raft.RequestPreVoteResponse) error {
	d := wire.Decoder{B: b}
	*r = raft.RequestPreVoteResponse{RPCHeader: decodeHeader(&d), Term: d.U64(), Granted: d.Flag()}
	return errOf(&d)
}

func encodeInstallSnapshot(e *wire.Encoder, r *raft.InstallSnapshotRequest) {
	encodeHeader(e, r.RPCHeader)
	e.U64(uint64(int64(r.SnapshotVersion)))
	e.U64(r.Term)
	e.Bytes(r.Leader)
	e.U64(r.LastLogIndex)
	e.U64(r.LastLogTerm)
	e.Bytes(r.Peers)
	e.Bytes(r.Configuration)
	e.U64(r.ConfigurationIndex)
	e.U64(uint64(r.Size))
}

func decodeInstallSnapshot(b []byte) (*raft.InstallSnapshotRequest, error) {
	d := wire.Decoder{B: b}
	r := &raft.InstallSnapshotRequest{
		RPCHeader:          decodeHeader(&d),
		SnapshotVersion:    raft.SnapshotVersion(int64(d.U64())),
		Term:               d.U64(),
		Leader:             d.Bytes(),
		LastLogIndex:       d.U64(),
		LastLogTerm:        d.U64(),
		Peers:              d.Bytes(),
		Configuration:      d.Bytes(),
		ConfigurationIndex: d.U64(),
		Size:               int64(d.U64()),
	}
	if r.Size < 0 {
		return nil, errRaftMessage
	}
	return r, errOf(&d)
}

func encodeInstallSnapshotResponse(e *wire.Encoder, r *raft.InstallSnapshotResponse) {
	encodeHeader(e, r.RPCHeader)
	e.U64(r.Term)
	e.Flag(r.Success)
}

func decodeInstallSnapshotResponse(b []byte, r *raft.InstallSnapshotResponse) error {
	d := wire.Decoder{B: b}
	*r = raft.InstallSnapshotResponse{RPCHeader: decodeHeader(&d), Term: d.U64(), Success: d.Flag()}
	return errOf(&d)
}

// encodeRequest encodes any of Raft's requests and says its kind.
func encodeRequest(e *wire.Encoder, args any) uint8 {
	switch r := args.(type) {
	case *raft.AppendEntriesRequest:
		encodeAppendEntries(e, r)
		return rpcAppendEntries
	case *raft.RequestVoteRequest:
		encodeRequestVote(e, r)
		return rpcRequestVote
	case *raft.RequestPreVoteRequest:
		encodeRequestPreVote(e, r)
		return rpcRequestPreVote
	case *raft.InstallSnapshotRequest:
		encodeInstallSnapshot(e, r)
		return rpcInstallSnapshot
	case *raft.TimeoutNowRequest:
		encodeHeader(e, r.RPCHeader)
		return rpcTimeoutNow
	}
	panic("peer: not a request of raft")
}

// decodeRequest is the reverse of encodeRequest. The request points into b.
func decodeRequest(kind uint8, b []byte) (any, error) {
	switch kind {
	case rpcAppendEntries:
		return decodeAppendEntries(b)
	case rpcRequestVote:
		return decodeRequestVote(b)
	case rpcRequestPreVote:
		return decodeRequestPreVote(b)
	case rpcInstallSnapshot:
		return decodeInstallSnapshot(b)
	case rpcTimeoutNow:
		d := wire.Decoder{B: b}
		r := &raft.TimeoutNowRequest{RPCHeader: decodeHeader(&d)}
		return r, errOf(&d)
	}
	return nil, errRaftMessage
}

// encodeResponse encodes any of Raft's responses; nothing for a nil one.
func encodeResponse(e *wire.Encoder, resp any) {
	switch r := resp.(type) {
	case *raft.AppendEntriesResponse:
		encodeAppendEntriesResponse(e, r)
	case *raft.RequestVoteResponse:
		encodeRequestVoteResponse(e, r)
	case *raft.RequestPreVoteResponse:
		encodeRequestPreVoteResponse(e, r)
	case *raft.InstallSnapshotResponse:
		encodeInstallSnapshotResponse(e, r)
	case *raft.TimeoutNowResponse:
		encodeHeader(e, r.RPCHeader)
	}
}

// decodeResponse fills resp, a pointer to one of Raft's responses. What it is
// filled with points into b.
func decodeResponse(b []byte, resp any) error {
	switch r := resp.(type) {
	case *raft.AppendEntriesResponse:
		return decodeAppendEntriesResponse(b, r)
	case *raft.RequestVoteResponse:
		return decodeRequestVoteResponse(b, r)
	case *raft.RequestPreVoteResponse:
		return decodeRequestPreVoteResponse(b, r)
	case *raft.InstallSnapshotResponse:
		return decodeInstallSnapshotResponse(b, r)
	case *raft.TimeoutNowResponse:
		d := wire.Decoder{B: b}
		r.RPCHeader = decodeHeader(&d)
		return errOf(&d)
	}
	return errRaftMessage
}

// IsHeartbeat decides as hashicorp/raft's network transport does (net_transport.go, handleCommand).
func IsHeartbeat(r *raft.AppendEntriesRequest) bool {
	leader := r.Addr
	if len(leader) == 0 {
		leader = r.Leader
	}
	return r.Term != 0 && leader != nil && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 &&
		len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}
