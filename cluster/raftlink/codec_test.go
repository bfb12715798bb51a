package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated fields Leader and Candidate, so they are carried as they are

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// bytesOrNil draws nil, empty and other byte strings, some so large that they are sent in place.
func bytesOrNil(t *rapid.T, label string) []byte {
	switch rapid.IntRange(0, 9).Draw(t, label+" kind") {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, label)}, rapid.IntRange(wire.OwnPart-1, 3*wire.OwnPart).Draw(t, label+" size"))
	}
	return rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, label)
}

func anyHeader(t *rapid.T) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(rapid.IntRange(-1, 4).Draw(t, "protocol")), ID: bytesOrNil(t, "id"), Addr: bytesOrNil(t, "addr")}
}

func anyLog(t *rapid.T) *raft.Log {
	at := time.Time{}
	if rapid.Bool().Draw(t, "stamped") {
		at = time.Unix(rapid.Int64Range(-1<<33, 1<<34).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "nsec")).UTC()
	}
	return &raft.Log{
		Index: rapid.Uint64().Draw(t, "index"), Term: rapid.Uint64().Draw(t, "term"), Type: raft.LogType(rapid.Byte().Draw(t, "type")),
		Data: bytesOrNil(t, "data"), Extensions: bytesOrNil(t, "ext"), AppendedAt: at,
	}
}

// every message of hashicorp/raft, requests and responses.
var anyMessage = map[string]func(t *rapid.T) any{
	"AppendEntries": func(t *rapid.T) any {
		r := &raft.AppendEntriesRequest{
			RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), Leader: bytesOrNil(t, "leader"),
			PrevLogEntry: rapid.Uint64().Draw(t, "prev"), PrevLogTerm: rapid.Uint64().Draw(t, "prev term"), LeaderCommitIndex: rapid.Uint64().Draw(t, "commit"),
		}
		for range rapid.IntRange(0, 5).Draw(t, "entries") {
			r.Entries = append(r.Entries, anyLog(t))
		}
		return r
	},
	"RequestVote": func(t *rapid.T) any {
		return &raft.RequestVoteRequest{
			RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), Candidate: bytesOrNil(t, "candidate"),
			LastLogIndex: rapid.Uint64().Draw(t, "last"), LastLogTerm: rapid.Uint64().Draw(t, "last term"), LeadershipTransfer: rapid.Bool().Draw(t, "transfer"),
		}
	},
	"RequestPreVote": func(t *rapid.T) any {
		return &raft.RequestPreVoteRequest{RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), LastLogIndex: rapid.Uint64().Draw(t, "last"), LastLogTerm: rapid.Uint64().Draw(t, "last term")}
	},
	"InstallSnapshot": func(t *rapid.T) any {
		return &raft.InstallSnapshotRequest{
			RPCHeader: anyHeader(t), SnapshotVersion: raft.SnapshotVersion(rapid.IntRange(0, 2).Draw(t, "version")), Term: rapid.Uint64().Draw(t, "term"),
			Leader: bytesOrNil(t, "leader"), LastLogIndex: rapid.Uint64().Draw(t, "last"), LastLogTerm: rapid.Uint64().Draw(t, "last term"), Peers: bytesOrNil(t, "peers"),
			Configuration: bytesOrNil(t, "configuration"), ConfigurationIndex: rapid.Uint64().Draw(t, "configuration index"), Size: rapid.Int64Range(0, math.MaxInt64).Draw(t, "size"),
		}
	},
	"TimeoutNow": func(t *rapid.T) any { return &raft.TimeoutNowRequest{RPCHeader: anyHeader(t)} },
	"AppendEntriesResponse": func(t *rapid.T) any {
		return &raft.AppendEntriesResponse{
			RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), LastLog: rapid.Uint64().Draw(t, "last"),
			Success: rapid.Bool().Draw(t, "success"), NoRetryBackoff: rapid.Bool().Draw(t, "no backoff"),
		}
	},
	"RequestVoteResponse": func(t *rapid.T) any {
		return &raft.RequestVoteResponse{RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), Peers: bytesOrNil(t, "peers"), Granted: rapid.Bool().Draw(t, "granted")}
	},
	"RequestPreVoteResponse": func(t *rapid.T) any {
		return &raft.RequestPreVoteResponse{RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), Granted: rapid.Bool().Draw(t, "granted")}
	},
	"InstallSnapshotResponse": func(t *rapid.T) any {
		return &raft.InstallSnapshotResponse{RPCHeader: anyHeader(t), Term: rapid.Uint64().Draw(t, "term"), Success: rapid.Bool().Draw(t, "success")}
	},
	"TimeoutNowResponse": func(t *rapid.T) any { return &raft.TimeoutNowResponse{RPCHeader: anyHeader(t)} },
}

func isRequest(m any) bool {
	_, response := decodeInto(m)
	return !response
}

// decodeInto gives an empty response of the same type, if m is a response.
func decodeInto(m any) (any, bool) {
	switch m.(type) {
	case *raft.AppendEntriesResponse, *raft.RequestVoteResponse, *raft.RequestPreVoteResponse, *raft.InstallSnapshotResponse, *raft.TimeoutNowResponse:
		return reflect.New(reflect.TypeOf(m).Elem()).Interface(), true
	}
	return nil, false
}

func encodeAny(m any) (kind uint8, body []byte) {
	e := wire.Encoder{}
	if isRequest(m) {
		kind = encodeRequest(&e, m)
	} else {
		encodeResponse(&e, m)
	}
	return kind, bytes.Join(e.Done(), nil)
}

func decodeAny(like any, kind uint8, b []byte) (any, error) {
	if out, ok := decodeInto(like); ok {
		return out, decodeResponse(b, out)
	}
	return decodeRequest(kind, b)
}

func TestRaftMessagesComeBack(t *testing.T) {
	for name, draw := range anyMessage {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			m := draw(t)
			kind, b := encodeAny(m)
			got, err := decodeAny(m, kind, append(b[:len(b):len(b)], "of a later version"...))
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Fatalf("got %+v, want %+v, err %v", got, m, err)
			}
			if cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut"); len(b) > 0 {
				if _, err := decodeAny(m, kind, b[:cut]); err == nil {
					t.Fatalf("cut at %d of %d: no error", cut, len(b))
				}
			}
		}))
	}
}

// TestEveryFieldIsCarried fails when hashicorp/raft adds a field that the codec does not know.
func TestEveryFieldIsCarried(t *testing.T) {
	fields := map[reflect.Type]int{
		reflect.TypeFor[raft.RPCHeader](): 3, reflect.TypeFor[raft.Log](): 6,
		reflect.TypeFor[raft.AppendEntriesRequest](): 7, reflect.TypeFor[raft.AppendEntriesResponse](): 5,
		reflect.TypeFor[raft.RequestVoteRequest](): 6, reflect.TypeFor[raft.RequestVoteResponse](): 4,
		reflect.TypeFor[raft.RequestPreVoteRequest](): 4, reflect.TypeFor[raft.RequestPreVoteResponse](): 3,
		reflect.TypeFor[raft.InstallSnapshotRequest](): 10, reflect.TypeFor[raft.InstallSnapshotResponse](): 3,
		reflect.TypeFor[raft.TimeoutNowRequest](): 1, reflect.TypeFor[raft.TimeoutNowResponse](): 1,
	}
	for typ, n := range fields {
		if typ.NumField() != n {
			t.Errorf("%v has %d fields, codec.go knows %d", typ, typ.NumField(), n)
		}
	}
}

func TestLargeDataIsNotCopied(t *testing.T) {
	data := make([]byte, 1<<20)
	e := wire.Encoder{}
	encodeAppendEntries(&e, &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: data}}})
	found := false
	for _, p := range e.Done() {
		found = found || (len(p) == len(data) && &p[0] == &data[0])
	}
	if !found {
		t.Error("the entry's data is not a part of its own")
	}
}

func FuzzDecodeRaft(f *testing.F) {
	for name, draw := range anyMessage {
		_ = name
		m := rapid.Custom(draw).Example(1)
		kind, b := encodeAny(m)
		f.Add(kind, isRequest(m), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, request bool, b []byte) {
		if request {
			if m, err := decodeRequest(kind, b); err == nil {
				k, again := encodeAny(m)
				if got, err := decodeRequest(k, again); err != nil || !reflect.DeepEqual(got, m) {
					t.Fatalf("%+v became %+v, %v", m, got, err)
				}
			}
			return
		}
		for _, m := range []any{
			&raft.AppendEntriesResponse{}, &raft.RequestVoteResponse{}, &raft.RequestPreVoteResponse{},
			&raft.InstallSnapshotResponse{}, &raft.TimeoutNowResponse{},
		} {
			_ = decodeReply(link.Reply{Status: kind % 3, Body: b}, m)
		}
		_ = checkConfiguration(&raft.InstallSnapshotRequest{SnapshotVersion: 1, Configuration: b})
	})
}

func TestSplitAppendSaysTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		args := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 41, PrevLogTerm: 3, LeaderCommitIndex: 40}
		data := make([]byte, 3*maxAppend)
		for i := range rapid.IntRange(0, 12).Draw(t, "entries") {
			n := rapid.SampledFrom([]int{0, 10, maxAppend / 3, maxAppend, 2 * maxAppend}).Draw(t, "size")
			args.Entries = append(args.Entries, &raft.Log{Index: 42 + uint64(i), Term: 3 + uint64(i/2), Data: data[:n]})
		}
		prev, prevTerm := args.PrevLogEntry, args.PrevLogTerm
		var all []*raft.Log
		for _, part := range splitAppend(args) {
			if part.PrevLogEntry != prev || part.PrevLogTerm != prevTerm || part.Term != 7 || part.LeaderCommitIndex != 40 {
				t.Fatalf("part %+v does not follow %d/%d", part, prev, prevTerm)
			}
			size := 0
			for _, e := range part.Entries {
				size += len(e.Data)
				prev, prevTerm = e.Index, e.Term
			}
			if size > maxAppend && len(part.Entries) > 1 {
				t.Fatalf("a part of %d entries has %d bytes", len(part.Entries), size)
			}
			all = append(all, part.Entries...)
		}
		if !reflect.DeepEqual(all, args.Entries) {
			t.Fatalf("%d entries became %d", len(args.Entries), len(all))
		}
	})
}
