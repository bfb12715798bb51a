package raftlink

//lint:file-ignore SA1019 raft still fills the deprecated fields Leader and Candidate, so they are carried as they are

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestRaftMessagesStayAsTheyAre: nodes of different versions read each other's messages.
func TestRaftMessagesStayAsTheyAre(t *testing.T) {
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n1.0000abcd"), Addr: []byte{}}
	for _, c := range []struct {
		message any
		kind    uint8
		want    string
	}{
		{&raft.AppendEntriesRequest{
			RPCHeader: header, Term: 1, Leader: []byte("l"), PrevLogEntry: 2, PrevLogTerm: 3, LeaderCommitIndex: 4,
			Entries: []*raft.Log{
				{Index: 5, Term: 6, Type: raft.LogBarrier, Data: []byte("data"), Extensions: []byte{}, AppendedAt: time.Unix(7, 8).UTC()},
				{Index: 9},
			},
		}, 0, "0100000000000000030c6e312e3030303061626364010000000000000001026c0000000000000002000000000000000300000000000000040000000200000000000000050000000000000006040000000000000007000000080105646174610000000000000009000000000000000000fffffff1886e0900000000000000"},
		{&raft.RequestVoteRequest{RPCHeader: header, Term: 1, Candidate: []byte("c"), LastLogIndex: 2, LastLogTerm: 3, LeadershipTransfer: true}, 1, "0100000000000000030c6e312e303030306162636401000000000000000102630000000000000002000000000000000301"},
		{&raft.InstallSnapshotRequest{
			RPCHeader: header, SnapshotVersion: 1, Term: 2, Leader: []byte("l"), LastLogIndex: 3, LastLogTerm: 4, Peers: []byte("p"),
			Configuration: []byte("configuration"), ConfigurationIndex: 5, Size: 6,
		}, 2, "0100000000000000030c6e312e30303030616263640100000000000000010000000000000002026c0000000000000003000000000000000402700e636f6e66696775726174696f6e00000000000000050000000000000006"},
		{&raft.TimeoutNowRequest{RPCHeader: header}, 3, "0100000000000000030c6e312e303030306162636401"},
		{&raft.RequestPreVoteRequest{RPCHeader: header, Term: 1, LastLogIndex: 2, LastLogTerm: 3}, 4, "0100000000000000030c6e312e303030306162636401000000000000000100000000000000020000000000000003"},
		{&raft.AppendEntriesResponse{RPCHeader: header, Term: 1, LastLog: 2, Success: true, NoRetryBackoff: true}, 0, "0100000000000000030c6e312e303030306162636401000000000000000100000000000000020101"},
		{&raft.RequestVoteResponse{RPCHeader: header, Term: 1, Peers: []byte("p"), Granted: true}, 0, "0100000000000000030c6e312e3030303061626364010000000000000001027001"},
		{&raft.InstallSnapshotResponse{RPCHeader: header, Term: 1, Success: true}, 0, "0100000000000000030c6e312e303030306162636401000000000000000101"},
		{&raft.TimeoutNowResponse{RPCHeader: header}, 0, "0100000000000000030c6e312e303030306162636401"},
		{&raft.RequestPreVoteResponse{RPCHeader: header, Term: 1, Granted: true}, 0, "0100000000000000030c6e312e303030306162636401000000000000000101"},
	} {
		kind, body := encodeAny(c.message)
		if got := hex.EncodeToString(body); got != c.want || kind != c.kind {
			t.Errorf("%T of kind %d is\n%s, and was of kind %d\n%s", c.message, kind, got, c.kind, c.want)
		}
	}
}
