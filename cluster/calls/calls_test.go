package calls

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
	"github.com/trimaran-io/trimaran/security/acl"
)

var part = fsm.PartitionID{Topic: fsm.TopicID{0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xb0}, Partition: 7}

const partHex = "a1a2a3a4a5a6a7a8a9aaabacadaeafb0" + "00000007"

// loop is a node that answers itself.
type loop struct {
	server *Server
	t      testing.TB
	asked  []byte
	sent   []byte
}

func (l *loop) Call(ctx context.Context, _ string, kind uint8, payload ...[]byte) ([]byte, error) {
	l.asked = bytes.Join(payload, nil)
	l.sent, _ = l.server.Answer(ctx, "n1.00000000", kind, bytes.Clone(l.asked))
	return DecodeReply(l.server.Serve(ctx, "n1.00000000", kind, bytes.Clone(l.asked)))
}

// golden asks, and holds the bytes on the wire against what all programs send. What was asked
// must arrive, and what was answered come back.
func golden[Q, A any](t *testing.T, c *Call[Q, A], q Q, request string, a A, answer string) {
	t.Helper()
	t.Run(c.Name, func(t *testing.T) {
		t.Helper()
		var got Q
		s := &Server{}
		Handle(s, c, func(_ context.Context, _ string, q Q) (A, error) {
			got = q
			return a, nil
		})
		l := &loop{server: s, t: t}
		back, err := c.Ask(context.Background(), l, "n2.00000000", q)
		if err != nil {
			t.Fatal(err)
		}
		if is := hex.EncodeToString(l.asked); is != strings.ReplaceAll(request, " ", "") {
			t.Errorf("the request is\n%s, want\n%s", is, request)
		}
		if is := hex.EncodeToString(l.sent); is != strings.ReplaceAll(answer, " ", "") {
			t.Errorf("the answer is\n%s, want\n%s", is, answer)
		}
		if !reflect.DeepEqual(got, q) {
			t.Errorf("%+v arrived as %+v", q, got)
		}
		if !reflect.DeepEqual(back, a) {
			t.Errorf("%+v came back as %+v", a, back)
		}
		// Cut short it is refused, or it is something else.
		for cut := range l.asked {
			if q, err := c.request.get(l.asked[:cut]); err == nil {
				if again, err := c.request.put(q); err != nil || len(again) > cut {
					t.Fatalf("cut at %d it is taken for %+v", cut, q)
				}
			} else if outcome.Code(err) != outcome.ErrUnknown {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
		for cut := range l.sent {
			_, _ = c.Read(q, l.sent[:cut])
		}
	})
}

func text(s string) string { return hex.EncodeToString([]byte(s)) }

// Nodes of all versions send these bytes.
func TestBytesOnTheWire(t *testing.T) {
	batches := []kafkaproto.Batch{prototest.Batch("a", "b"), prototest.Batch("c")}
	golden(t, Append, AppendRequest{part, 42, batches},
		partHex+"000000000000002a 00000002"+fmt.Sprintf("%08x", batches[0].Size())+hex.EncodeToString(batches[0].Bytes())+fmt.Sprintf("%08x", batches[1].Size())+hex.EncodeToString(batches[1].Bytes()),
		[]fsm.Appended{{BaseOffset: 16, LogStart: 3, Timestamp: 1700000000000, Err: 0}, {BaseOffset: -1, LogStart: -1, Timestamp: -1, Err: outcome.ErrNotLeader}},
		"0000000000000010 0000000000000003 0000018bcfe56800 0000 ffffffffffffffff ffffffffffffffff ffffffffffffffff "+fmt.Sprintf("%04x", uint16(outcome.ErrNotLeader)))
	golden(t, AppendInLine, AppendInLineRequest{AppendRequest{part, 42, batches[1:]}, Place{Line: 0x0102030405060708, Run: 9, Number: 10}},
		partHex+"000000000000002a 0102030405060708 0000000000000009 0000000a 00000001"+fmt.Sprintf("%08x", batches[1].Size())+hex.EncodeToString(batches[1].Bytes()),
		[]fsm.Appended{{BaseOffset: 16, LogStart: 3, Timestamp: 1700000000000, Err: 0}}, "0000000000000010 0000000000000003 0000018bcfe56800 0000")
	golden(t, Read, ReadRequest{part, 258, 65536}, partHex+"0000000000000102 00010000",
		fsm.Slice{HighWatermark: 300, LastStable: 300, LogStart: 2, Batches: []byte("batches")}, "000000000000012c 0000000000000002"+text("batches"))
	golden(t, ReadStable, ReadStableRequest{ReadRequest{part, 258, 65536}, fsm.ReadCommitted}, partHex+"0000000000000102 00010000 01",
		fsm.Slice{
			HighWatermark: 300, LastStable: 290, LogStart: 2, Batches: []byte("batches"),
			Aborted: []fsm.AbortedTransaction{{ProducerID: 9, First: 250, Last: 260, LastStable: 255}, {ProducerID: 10, First: 255, Last: 270, LastStable: 271}},
		},
		"000000000000012c 0000000000000122 0000000000000002 00000002"+
			"0000000000000009 00000000000000fa 0000000000000104 00000000000000ff"+
			"000000000000000a 00000000000000ff 000000000000010e 000000000000010f"+text("batches"))
	golden(t, AwaitStable, AwaitRequest{part, 258}, partHex+"0000000000000102", Nothing{}, "")
	golden(t, LastStable, part, partHex, fsm.Offset(290), "0000000000000122")
	golden(t, Await, AwaitRequest{part, 258}, partHex+"0000000000000102", Nothing{}, "")
	golden(t, ListOffsets, ListOffsetsRequest{part, -1, 1}, partHex+"ffffffffffffffff 00000001", []fsm.Offset{5, 0}, "0000000000000005 0000000000000000")
	golden(t, Leader, part, partHex, Nothing{}, "")
	golden(t, Describe, DescribeRequest{part, 9}, partHex+"0000000000000009",
		raftlog.Described{First: 1, FirstStart: 0, Bytes: 4096, Index: 12, Term: 3, ConfigurationIndex: 2, Next: 30, State: []byte("state")},
		"0000007d"+text(`{"First":1,"FirstStart":0,"Bytes":4096,"Index":12,"Term":3,"Configuration":{"Servers":null},"ConfigurationIndex":2,"Next":30}`)+text("state"))
	golden(t, Entries, EntriesRequest{part, 4, 9, 4 << 20}, partHex+"0000000000000004 0000000000000009 00400000", []byte("entries"), text("entries"))
	golden(t, Applied, part, partHex, 77, "000000000000004d")
	golden(t, Leave, part, partHex, 12, "000000000000000c")
	golden(t, CatalogApply, []byte(`{"version":1}`), text(`{"version":1}`), CatalogReply{Index: 9}, text(`{"index":9}`))
	golden(t, CreateTopic, CreateTopicRequest{Spec: fsm.TopicSpec{Name: "a", Partitions: 1, ReplicationFactor: 3}, ID: part.Topic},
		text(`{"spec":{"name":"a","partitions":1,"replication_factor":3},"id":"`+part.Topic.String()+`"}`), CatalogReply{Index: 9}, text(`{"index":9}`))
	golden(t, CatalogIndex, Nothing{}, "", CatalogReply{Index: 9, FirstProducerID: 1000}, text(`{"index":9,"first_producer_id":1000}`))
	golden(t, CatalogKnown, 9, "0000000000000009", Nothing{}, "")
	golden(t, Form, Formation{"c", "n1.00000001", []fsm.Node{{ID: "n1", Incarnation: "00000001"}}},
		text(`{"cluster_id":"c","proposer":"n1.00000001","nodes":[{"id":"n1","incarnation":"00000001"}]}`), Nothing{}, "")
	golden(t, Join, fsm.Node{ID: "n1", Incarnation: "00000001", FeatureLevel: 3}, text(`{"id":"n1","incarnation":"00000001","level":3}`), JoinReply{"c"}, text(`{"cluster_id":"c"}`))
	golden(t, ReplicaStatus, Nothing{}, "", NodeReport{Catalog: "leader", Term: 2, End: 9, CatalogVoters: []string{"n1.00000001"},
		Replicas: map[string]ReplicaReport{"p": {Leads: true, Term: 4, LogStart: 1, Applied: 5, Bytes: 6, Voters: []string{"v"}}}, Broken: map[string]string{"q": "why"}, DiskFree: 1, DiskTotal: 2},
		text(`{"catalog":"leader","catalog_term":2,"catalog_end":9,"catalog_voters":["n1.00000001"],"replicas":{"p":{"leads":true,"term":4,"log_start":1,"applied":5,"bytes":6,"voters":["v"]}},"broken":{"q":"why"},"disk_free":1,"disk_total":2,"disk_full":false}`))
	golden(t, Survey, []string{"catalog", "g"}, "01 00000002 07"+text("catalog")+"01"+text("g"),
		[]Standing{{Here: true, Led: true, Voter: true, Follower: true, Free: true, Term: 5, LastTerm: 4, LastIndex: 99}, {}},
		"1f 0000000000000005 0000000000000004 0000000000000063"+strings.Repeat("00", 25))
	golden(t, Stand, []StandRequest{{"catalog", 5, true}, {"g", 6, false}}, "01 00000002 07"+text("catalog")+"01"+text("g")+"0000000000000005 01 0000000000000006 00", Nothing{}, "")
	golden(t, Member, Nothing{}, "", true, "01")
	golden(t, OffsetForTime, OffsetForTimeRequest{part, -3}, partHex+"fffffffffffffffd",
		OffsetForTimeReply{kafkaproto.TimestampedOffset{Offset: 5, Timestamp: 1700000000000, LeaderEpoch: 2}, true}, "0000000000000005 0000018bcfe56800 00000002")
	golden(t, OffsetForTime, OffsetForTimeRequest{part, 1}, partHex+"0000000000000001", OffsetForTimeReply{}, "")
	golden(t, EpochEnd, EpochEndRequest{part, 3}, partHex+"00000003", EpochEndReply{2, 40}, "00000002 0000000000000028")
	golden(t, CreatePartitions, CreatePartitionsRequest{Topic: part.Topic, Count: 3, From: 1}, text(`{"topic":"`+part.Topic.String()+`","count":3,"from":1}`), CatalogReply{Index: 9}, text(`{"index":9}`))
	golden(t, DeleteRecords, DeleteRecordsRequest{part, -1}, partHex+"ffffffffffffffff", 40, "0000000000000028")
	golden(t, Producers, part, partHex, []fsm.ActiveProducer{{ID: 1, Epoch: 2, LastSequence: 3, LastTimestamp: 4}}, text(`[{"id":1,"epoch":2,"last_sequence":3,"last_timestamp":4}]`))
	appendOne := AppendRequest{part, 42, []kafkaproto.Batch{prototest.Batch("a")}}
	golden(t, AppendTransactional, AppendTransactionalRequest{AppendInLineRequest{appendOne, Place{7, 8, 9}}, fsm.Transaction{ID: "t", Add: true}},
		partHex+"000000000000002a 0000000000000007 0000000000000008 00000009 01 0001"+text("t")+"00000001"+fmt.Sprintf("%08x", appendOne.Batches[0].Size())+text(string(appendOne.Batches[0].Bytes())),
		[]fsm.Appended{{BaseOffset: -1, Err: outcome.ErrInvalidTxnState}}, "ffffffffffffffff 0000000000000000 0000000000000000 "+fmt.Sprintf("%04x", uint16(outcome.ErrInvalidTxnState)))
	golden(t, WriteMarkers, WriteMarkersRequest{part, 42, []fsm.Marker{{ProducerID: 5, Epoch: 6, Number: -7, Commit: true}, {ProducerID: 8, Forced: true}}},
		partHex+"000000000000002a 00000002 0000000000000005 0006 fffffff9 01 0000000000000008 0000 00000000 02",
		[]outcome.Error{0, outcome.ErrInvalidProducerEpoch}, "0000 "+fmt.Sprintf("%04x", uint16(outcome.ErrInvalidProducerEpoch)))
	golden(t, Full, true, "01", Nothing{}, "")
	golden(t, Hash, HashRequest{part, 1, 2, 3}, partHex+"0000000000000001 0000000000000002 0000000000000003", ReplicaHash{UpTo: 2, Bytes: 70, Sum: [32]byte{0xee}}, "0000000000000002 0000000000000046 ee"+strings.Repeat("00", 31))
	golden(t, CreateShards, Nothing{}, "", CatalogReply{Index: 9}, text(`{"index":9}`))
	shard := fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: 7}
	golden(t, HoldCommits, HoldCommitsRequest{shard, 0x0102030405060708}, hex.EncodeToString(fsm.GroupShardsID[:])+"00000007 0102030405060708", uint64(9), "0000000000000009")
	golden(t, Administer, admin.Request{Op: admin.OpDrain, Node: "n1"}, text(`{"op":"drain","node":"n1"}`), CatalogReply{Index: 9}, text(`{"index":9}`))
	binding := acl.Binding{Type: acl.Topic, Pattern: acl.Literal, Name: "t", Principal: "User:a", Host: "*", Operation: acl.Read, Permission: acl.Allow}
	name := "t"
	golden(t, AlterACLs, AlterACLsRequest{Add: []acl.Binding{binding}, Remove: []acl.Filter{{Type: acl.Topic, Pattern: acl.Match, Name: &name, Operation: acl.AnyOperation, Permission: acl.AnyPermission}}},
		text(`{"add":[{"type":2,"pattern":3,"name":"t","principal":"User:a","host":"*","operation":3,"permission":3}],"remove":[{"type":2,"pattern":2,"name":"t","operation":1,"permission":1}]}`),
		CatalogReply{Index: 9, RemovedACLs: [][]acl.Binding{{binding}}},
		text(`{"index":9,"removed_acls":[[{"type":2,"pattern":3,"name":"t","principal":"User:a","host":"*","operation":3,"permission":3}]]}`))
	golden(t, Relay, RelayRequest{1, "n3.00000003", [][]byte{[]byte("payload")}}, "01 0b"+text("n3.00000003")+text("payload"), []byte("answer"), text("answer"))
	golden(t, Who, "catalog", text("catalog"), Nothing{}, "")
}

func TestACoordinatedRequestOnTheWire(t *testing.T) {
	req := kmsg.NewPtrHeartbeatRequest()
	version, _ := coordinator.Version(req.Key())
	req.SetVersion(version)
	req.Group, req.MemberID = "g", "m"
	resp := req.ResponseKind()
	resp.SetVersion(version)
	golden(t, Coordinate, CoordinateRequest{fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: 3}, coordinator.Client{ID: "c", Host: "/h", Version: 2}, req},
		hex.EncodeToString(fsm.GroupShardsID[:])+"00000003 000c 0004 0002 0001"+text("c")+"0002"+text("/h")+"02"+text("g")+"00000000 02"+text("m")+"00 00",
		resp, "00000000 0000 00")
}

// TestErrorsComeBack with their code and what they say of the leader.
func TestErrorsComeBack(t *testing.T) {
	payload, err := DecodeReply(EncodeReply([]byte("payload"), nil))
	if err != nil || string(payload) != "payload" {
		t.Errorf("%q, %v", payload, err)
	}
	want := NotLeader{Hint: Hint{Identity: "n2.0badcafe", Term: 9}}
	reply := EncodeReply(nil, fmt.Errorf("wrapped: %w", want))
	text := "wrapped: " + want.Error()
	if is := fmt.Sprintf("%x", reply); is != fmt.Sprintf("%04x%04x%x0b%x0000000000000009", uint16(outcome.ErrNotLeader), len(text), text, "n2.0badcafe") {
		t.Errorf("on the wire it is %s", is)
	}
	var got NotLeader
	if _, err := DecodeReply(reply); !errors.As(err, &got) || got != want {
		t.Errorf("%v", err)
	}
	if _, err := DecodeReply(EncodeReply(nil, fmt.Errorf("%w: details", outcome.ErrTopicExists))); outcome.Code(err) != outcome.ErrTopicExists || err.Error() != "topic already exists: details" {
		t.Errorf("%v", err)
	}
	if _, err := DecodeReply(EncodeReply(nil, errors.New("something"))); outcome.Code(err) != outcome.ErrUnknown {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Call(context.Context, string, uint8, ...[]byte) ([]byte, error) {
	return nil, fmt.Errorf("%w: the session broke", outcome.ErrUnknownFate)
}

// TestWhatRepeatsIsAskedAgain: its fate does not matter, and that of all else does.
func TestWhatRepeatsIsAskedAgain(t *testing.T) {
	ctx := context.Background()
	if _, err := Read.Ask(ctx, broken{}, "n2.00000000", ReadRequest{}); !outcome.NotAppended(err) {
		t.Errorf("a read: %v", err)
	}
	if _, err := Append.Ask(ctx, broken{}, "n2.00000000", AppendRequest{}); outcome.Code(err) != outcome.ErrUnknownFate {
		t.Errorf("an append: %v", err)
	}
	for forced, repeats := range map[bool]bool{false: true, true: false} {
		if _, err := WriteMarkers.Ask(ctx, broken{}, "n2.00000000", WriteMarkersRequest{Markers: []fsm.Marker{{}, {Forced: forced}}}); outcome.NotAppended(err) != repeats {
			t.Errorf("a marker that is forced: %v: %v", forced, err)
		}
	}
	for req, repeats := range map[kmsg.Request]bool{kmsg.NewPtrOffsetFetchRequest(): true, kmsg.NewPtrHeartbeatRequest(): true, kmsg.NewPtrJoinGroupRequest(): false, kmsg.NewPtrOffsetCommitRequest(): false} {
		if _, err := Coordinate.Ask(ctx, broken{}, "n2.00000000", CoordinateRequest{Request: req}); outcome.NotAppended(err) != repeats {
			t.Errorf("%T: %v", req, err)
		}
	}
}

func TestABatchThatIsDamagedOnItsWayIsFound(t *testing.T) {
	batches := []kafkaproto.Batch{prototest.Batch("a", "b"), prototest.Batch("c")}
	payload := joined(appendParts(AppendRequest{part, 42, batches}))
	// A bit that flips anywhere in a batch but in its stamps is found before it is
	// proposed: offset (8 bytes) and epoch (4, behind 4 of length) are written anew.
	first := len(payload) - batches[1].Size() - 4 - batches[0].Size()
	for i := first; i < first+batches[0].Size(); i++ {
		if at := i - first; at < 8 || at >= 12 && at < 16 {
			continue
		}
		flipped := bytes.Clone(payload)
		flipped[i] ^= 0x10
		if _, err := readAppend(flipped); err == nil {
			t.Fatalf("byte %d of the batch flipped and it is taken", i-first)
		}
	}
}

// TestWhatIsNoBatchIsRefused: a first byte of 0x80 and above would make it a control command.
func TestWhatIsNoBatchIsRefused(t *testing.T) {
	logStart := append([]byte{0x81}, make([]byte, 8)...)
	logStart[8] = 1
	x := prototest.Batch("x").Bytes()
	for _, bad := range [][]byte{nil, {0}, logStart, x[:70], append(bytes.Clone(x), 0)} {
		head := fields(nil).partition(part).uint64(0).uint32(2)
		for _, batch := range [][]byte{prototest.Batch("y").Bytes(), bad} {
			head = append(binary.BigEndian.AppendUint32(head, uint32(len(batch))), batch...)
		}
		if _, err := readAppend(head); err == nil {
			t.Errorf("%x from another node is taken for a batch", bad)
		}
	}
}

// TestOnlyWhatMayBeRelayedIs: a call is handed on once, and only what is answered alike whoever
// asks.
func TestOnlyWhatMayBeRelayedIs(t *testing.T) {
	for _, row := range Table() {
		payload, _ := Relay.Payload(RelayRequest{Kind: row.Kind, Identity: "n3.00000000"})
		if _, err := readRelay(payload); (err == nil) != row.Relayed {
			t.Errorf("%s: %v", row.Name, err)
		}
	}
	for _, never := range []Row{Relay.Row, Who.Row, Leave.Row, Stand.Row, Survey.Row, Full.Row, Join.Row, Form.Row, Member.Row, Entries.Row} {
		if never.Relayed {
			t.Errorf("%s is relayed", never.Name)
		}
	}
}

func TestACallThatIsNotKnownIsRefused(t *testing.T) {
	s := &Server{Open: func(row Row) bool { return row.Early }}
	if _, err := s.Answer(context.Background(), "x", Read.Kind, nil); outcome.Code(err) != outcome.ErrNotLeader {
		t.Errorf("before it is open: %v", err)
	}
	s.Open = nil
	for _, kind := range []uint8{0, 200, Read.Kind} {
		if _, err := s.Answer(context.Background(), "x", kind, nil); outcome.Code(err) != outcome.ErrUnknown {
			t.Errorf("call %d: %v", kind, err)
		}
	}
	if missing := s.Missing(); len(missing) != len(Table()) {
		t.Errorf("missing: %v", missing)
	}
}

// TestTheTableIsInTheDocs; TRIMARAN_UPDATE=1 writes it.
func TestTheTableIsInTheDocs(t *testing.T) {
	const begin, end = "<!-- calls: begin -->\n", "<!-- calls: end -->"
	file := filepath.Join("..", "..", "docs", "calls.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	has, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q … %q", file, begin, end)
	}
	var want strings.Builder
	WriteTable(&want)
	if has == want.String() {
		return
	}
	if os.Getenv("TRIMARAN_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s has another table (TRIMARAN_UPDATE=1 writes it):\n%s\nthe code has\n%s", file, has, want.String())
}

// FuzzRequests gives every call any bytes: it takes them or says what is wrong.
func FuzzRequests(f *testing.F) {
	f.Add(uint8(1), joined(appendParts(AppendRequest{part, 3, []kafkaproto.Batch{prototest.Batch("a"), prototest.Batch("b")}})))
	transactional := AppendTransactionalRequest{Transaction: fsm.Transaction{ID: "t", Add: true}}
	transactional.Batches = []kafkaproto.Batch{prototest.Batch("a")}
	f.Add(uint8(15), joined(appendTransactionalParts(transactional)))
	markers, _ := putMarkers(WriteMarkersRequest{Markers: []fsm.Marker{{ProducerID: 1, Epoch: 2, Number: 3, Commit: true}, {Forced: true}}})
	f.Add(uint8(16), markers)
	f.Add(uint8(2), []byte{})
	f.Add(uint8(31), []byte(putNames([]string{"catalog"})))
	f.Add(uint8(17), append(make([]byte, 32), 1))
	s := &Server{}
	taken := func(t *testing.T, kind uint8, payload []byte) ([]byte, error) {
		switch kind {
		case Append.Kind:
			return again(Append, payload)
		case AppendTransactional.Kind:
			return again(AppendTransactional, payload)
		case WriteMarkers.Kind:
			return again(WriteMarkers, payload)
		case Survey.Kind:
			return again(Survey, payload)
		case Hash.Kind:
			return again(Hash, payload)
		case ReadStable.Kind:
			return again(ReadStable, payload)
		case Relay.Kind:
			return again(Relay, payload)
		case Coordinate.Kind:
			_, err := readCoordinate(payload)
			return nil, err
		}
		return s.Answer(context.Background(), "x", kind, payload)
	}
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		out, err := taken(t, kind, payload)
		if err == nil && kind != Coordinate.Kind && !bytes.HasPrefix(payload, out) {
			t.Fatal("what was taken is not what was sent")
		} else if err != nil && outcome.Code(err) == 0 {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

func again[Q, A any](c *Call[Q, A], payload []byte) ([]byte, error) {
	q, err := c.request.get(payload)
	if err != nil {
		return nil, err
	}
	return c.request.put(q)
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(EncodeReply([]byte("x"), nil))
	f.Add(EncodeReply(nil, NotLeader{Hint: Hint{Identity: "n1.00000000", Term: 1}}))
	f.Add(EncodeReply(nil, outcome.ErrTimeout))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if payload, err := DecodeReply(reply); err == nil && len(payload) > len(reply) {
			t.Fatal("more came out than went in")
		} else if err != nil && outcome.Code(err) == 0 {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

// TestAllAreAskedAtOnce, and when one answer is enough the others are not waited for.
func TestAllAreAskedAtOnce(t *testing.T) {
	var both sync.WaitGroup
	both.Add(3)
	var got []int
	AskAll(context.Background(), []int{1, 2, 3}, func(ctx context.Context, one int) (int, error) {
		both.Done()
		both.Wait()
		if one == 2 {
			return 20, nil
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}, func(one, answer int, err error) bool {
		got = append(got, one, answer)
		return err == nil
	})
	if !reflect.DeepEqual(got, []int{2, 20}) {
		t.Errorf("%v", got)
	}
}

func TestSurveysComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringN(0, 20, 255), 0, 10).Draw(t, "names")
		got, rest, err := readNames(append(putNames(names), "terms"...))
		if err != nil || string(rest) != "terms" || !slices.Equal(got, names) {
			t.Fatalf("%q, %q, %v, want %q", got, rest, err, names)
		}
		standings := make([]Standing, 0)
		for range names {
			standings = append(standings, Standing{
				rapid.Bool().Draw(t, "here"), rapid.Bool().Draw(t, "led"), rapid.Bool().Draw(t, "voter"), rapid.Bool().Draw(t, "follower"), rapid.Bool().Draw(t, "free"),
				rapid.Uint64().Draw(t, "term"), rapid.Uint64().Draw(t, "last term"), rapid.Uint64().Draw(t, "last index"),
			})
		}
		answer, _ := putStandings(standings)
		back, err := readStandings(names, answer)
		if err != nil || !reflect.DeepEqual(back, standings) {
			t.Fatalf("%+v, %v, want %+v", back, err, standings)
		}
		if _, err := readStandings(names, append(answer, 0)); err == nil {
			t.Fatal("a longer answer was taken")
		}
	})
}

// An answer with aborted transactions claims no memory that it has no bytes for.
func FuzzReadStable(f *testing.F) {
	whole, _ := putStableSlice(fsm.Slice{
		HighWatermark: 9, LastStable: 8, LogStart: 1, Batches: []byte("b"),
		Aborted: []fsm.AbortedTransaction{{ProducerID: 1, First: 2, Last: 3, LastStable: 4}},
	})
	f.Add(whole)
	f.Add(append(make([]byte, 24), 255, 255, 255, 255))
	f.Add(append(make([]byte, 24), 8, 0, 0, 0)) // times 32 it is more than 32 bits
	f.Fuzz(func(t *testing.T, answer []byte) {
		s, err := readStableSlice(answer)
		if err != nil {
			if outcome.Code(err) != outcome.ErrUnknown {
				t.Fatal(err)
			}
			return
		}
		if again, _ := putStableSlice(s); !bytes.Equal(again, answer) {
			t.Fatalf("%x was read, and is written %x", answer, again)
		}
	})
}

func FuzzSurvey(f *testing.F) {
	f.Add([]byte(putNames([]string{"catalog"})))
	f.Add([]byte{surveyLayout, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		names, rest, err := readNames(payload)
		if err == nil && len(names)+len(rest) > len(payload) {
			t.Fatalf("%d names and %d bytes of %d", len(names), len(rest), len(payload))
		}
	})
}

// TestADescribedLogIsReadStrictly: a newer program holds its log to more than is known here.
func TestADescribedLogIsReadStrictly(t *testing.T) {
	answer := append([]byte{0, 0, 0, 31}, `{"First":1,"Index":3,"Later":7}`...)
	if _, err := Describe.Read(DescribeRequest{}, answer); !errors.Is(err, fsm.ErrNewer) {
		t.Errorf("%v", err)
	}
	for _, bad := range [][]byte{nil, {0, 0, 0}, {0, 0, 0, 9, '{', '}'}, {255, 255, 255, 255}, append([]byte{0, 0, 0, 2}, "{}"...)} {
		if _, err := Describe.Read(DescribeRequest{}, bad); outcome.Code(err) != outcome.ErrUnknown {
			t.Errorf("%x: %v", bad, err)
		}
	}
}
