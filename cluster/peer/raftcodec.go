package peer

//lint:file-ignore SA1019 raft still fills the deprecated fields Leader and Candidate, so they are carried as they are

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"
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
	// ownPart is the size from which bytes are sent in place instead of copied.
	ownPart = 2 << 10
	// minEntry is the least that one entry takes: index, term, type, time, two nil strings.
	minEntry = 8 + 8 + 1 + 12 + 1 + 1
)

var errRaftMessage = errors.New("malformed raft message")

// encoder builds a message as a list of parts: small things in one buffer, big byte strings in place.
type encoder struct {
	parts [][]byte
	buf   []byte
}

func (e *encoder) u8(v uint8)   { e.buf = append(e.buf, v) }
func (e *encoder) u32(v uint32) { e.buf = binary.BigEndian.AppendUint32(e.buf, v) }
func (e *encoder) u64(v uint64) { e.buf = binary.BigEndian.AppendUint64(e.buf, v) }

func (e *encoder) flag(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

func (e *encoder) bytes(b []byte) {
	if b == nil {
		e.u8(0)
		return
	}
	e.buf = binary.AppendUvarint(e.buf, uint64(len(b))+1)
	if len(b) < ownPart {
		e.buf = append(e.buf, b...)
		return
	}
	e.parts = append(e.parts, e.buf, b)
	e.buf = nil
}

func (e *encoder) header(h raft.RPCHeader) {
	e.u8(raftLayout)
	e.u64(uint64(int64(h.ProtocolVersion)))
	e.bytes(h.ID)
	e.bytes(h.Addr)
}

func (e *encoder) done() [][]byte {
	if len(e.buf) > 0 {
		e.parts = append(e.parts, e.buf)
		e.buf = nil
	}
	return e.parts
}

// decoder reads from one body; the first thing that does not fit sets bad, and everything after is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) || n < 0 {
		d.bad = true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) flag() bool { return d.u8() != 0 }

func (d *decoder) uvarint() uint64 {
	if d.bad {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes gives a slice of the body itself.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	if n-1 > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	return d.take(int(n - 1))
}

func (d *decoder) header() raft.RPCHeader {
	if d.u8() != raftLayout {
		d.bad = true
	}
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(int64(d.u64())), ID: d.bytes(), Addr: d.bytes()}
}

func (d *decoder) err() error {
	if d.bad {
		return errRaftMessage
	}
	return nil
}

func encodeAppendEntries(e *encoder, r *raft.AppendEntriesRequest) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.bytes(r.Leader)
	e.u64(r.PrevLogEntry)
	e.u64(r.PrevLogTerm)
	e.u64(r.LeaderCommitIndex)
	e.u32(uint32(len(r.Entries)))
	for _, l := range r.Entries {
		e.u64(l.Index)
		e.u64(l.Term)
		e.u8(uint8(l.Type))
		// Seconds and nanoseconds apart: the zero time does not fit in nanoseconds alone.
		e.u64(uint64(l.AppendedAt.Unix()))
		e.u32(uint32(l.AppendedAt.Nanosecond()))
		e.bytes(l.Extensions)
		e.bytes(l.Data)
	}
}

func decodeAppendEntries(b []byte) (*raft.AppendEntriesRequest, error) {
	d := decoder{b: b}
	r := &raft.AppendEntriesRequest{RPCHeader: d.header()}
	r.Term = d.u64()
	r.Leader = d.bytes()
	r.PrevLogEntry = d.u64()
	r.PrevLogTerm = d.u64()
	r.LeaderCommitIndex = d.u64()
	n := uint64(d.u32())
	if d.bad || n*minEntry > uint64(len(d.b)) {
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
		l.Index = d.u64()
		l.Term = d.u64()
		l.Type = raft.LogType(d.u8())
		sec, nsec := int64(d.u64()), d.u32()
		if nsec >= uint32(time.Second) {
			return nil, errRaftMessage
		}
		if t := time.Unix(sec, int64(nsec)).UTC(); !t.IsZero() {
			l.AppendedAt = t
		}
		l.Extensions = d.bytes()
		l.Data = d.bytes()
	}
	return r, d.err()
}

func encodeAppendEntriesResponse(e *encoder, r *raft.AppendEntriesResponse) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.u64(r.LastLog)
	e.flag(r.Success)
	e.flag(r.NoRetryBackoff)
}

func decodeAppendEntriesResponse(b []byte, r *raft.AppendEntriesResponse) error {
	d := decoder{b: b}
	*r = raft.AppendEntriesResponse{RPCHeader: d.header(), Term: d.u64(), LastLog: d.u64(), Success: d.flag(), NoRetryBackoff: d.flag()}
	return d.err()
}

func encodeRequestVote(e *encoder, r *raft.RequestVoteRequest) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.bytes(r.Candidate)
	e.u64(r.LastLogIndex)
	e.u64(r.LastLogTerm)
	e.flag(r.LeadershipTransfer)
}

func decodeRequestVote(b []byte) (*raft.RequestVoteRequest, error) {
	d := decoder{b: b}
	r := &raft.RequestVoteRequest{RPCHeader: d.header(), Term: d.u64(), Candidate: d.bytes(), LastLogIndex: d.u64(), LastLogTerm: d.u64(), LeadershipTransfer: d.flag()}
	return r, d.err()
}

func encodeRequestVoteResponse(e *encoder, r *raft.RequestVoteResponse) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.bytes(r.Peers)
	e.flag(r.Granted)
}

func decodeRequestVoteResponse(b []byte, r *raft.RequestVoteResponse) error {
	d := decoder{b: b}
	*r = raft.RequestVoteResponse{RPCHeader: d.header(), Term: d.u64(), Peers: d.bytes(), Granted: d.flag()}
	return d.err()
}

func encodeRequestPreVote(e *encoder, r *raft.RequestPreVoteRequest) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.u64(r.LastLogIndex)
	e.u64(r.LastLogTerm)
}

func decodeRequestPreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	d := decoder{b: b}
	r := &raft.RequestPreVoteRequest{RPCHeader: d.header(), Term: d.u64(), LastLogIndex: d.u64(), LastLogTerm: d.u64()}
	return r, d.err()
}

func encodeRequestPreVoteResponse(e *encoder, r *raft.RequestPreVoteResponse) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.flag(r.Granted)
}

func decodeRequestPreVoteResponse(b []byte, r *raft.RequestPreVoteResponse) error {
	d := decoder{b: b}
	*r = raft.RequestPreVoteResponse{RPCHeader: d.header(), Term: d.u64(), Granted: d.flag()}
	return d.err()
}

func encodeInstallSnapshot(e *encoder, r *raft.InstallSnapshotRequest) {
	e.header(r.RPCHeader)
	e.u64(uint64(int64(r.SnapshotVersion)))
	e.u64(r.Term)
	e.bytes(r.Leader)
	e.u64(r.LastLogIndex)
	e.u64(r.LastLogTerm)
	e.bytes(r.Peers)
	e.bytes(r.Configuration)
	e.u64(r.ConfigurationIndex)
	e.u64(uint64(r.Size))
}

func decodeInstallSnapshot(b []byte) (*raft.InstallSnapshotRequest, error) {
	d := decoder{b: b}
	r := &raft.InstallSnapshotRequest{
		RPCHeader:          d.header(),
		SnapshotVersion:    raft.SnapshotVersion(int64(d.u64())),
		Term:               d.u64(),
		Leader:             d.bytes(),
		LastLogIndex:       d.u64(),
		LastLogTerm:        d.u64(),
		Peers:              d.bytes(),
		Configuration:      d.bytes(),
		ConfigurationIndex: d.u64(),
		Size:               int64(d.u64()),
	}
	if r.Size < 0 {
		return nil, errRaftMessage
	}
	return r, d.err()
}

func encodeInstallSnapshotResponse(e *encoder, r *raft.InstallSnapshotResponse) {
	e.header(r.RPCHeader)
	e.u64(r.Term)
	e.flag(r.Success)
}

func decodeInstallSnapshotResponse(b []byte, r *raft.InstallSnapshotResponse) error {
	d := decoder{b: b}
	*r = raft.InstallSnapshotResponse{RPCHeader: d.header(), Term: d.u64(), Success: d.flag()}
	return d.err()
}

// encodeRequest encodes any of Raft's requests and says its kind.
func encodeRequest(e *encoder, args any) uint8 {
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
		e.header(r.RPCHeader)
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
		d := decoder{b: b}
		r := &raft.TimeoutNowRequest{RPCHeader: d.header()}
		return r, d.err()
	}
	return nil, errRaftMessage
}

// encodeResponse encodes any of Raft's responses; nothing for a nil one.
func encodeResponse(e *encoder, resp any) {
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
		e.header(r.RPCHeader)
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
		d := decoder{b: b}
		r.RPCHeader = d.header()
		return d.err()
	}
	return errRaftMessage
}

// isHeartbeat decides as hashicorp/raft's network transport does (net_transport.go, handleCommand).
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	leader := r.Addr
	if len(leader) == 0 {
		leader = r.Leader
	}
	return r.Term != 0 && leader != nil && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 &&
		len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}
