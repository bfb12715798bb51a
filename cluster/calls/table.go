package calls

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
)

// The calls. Numbers are never reused; a node that does not know one answers outcome.ErrUnknown.
var (
	Append = define(Row{Kind: 1, Name: "Append", Relayed: true,
		Request: "partition, term that is meant or 0, batches", Answer: "of each batch: offset, log start, time, error"}, appendCall)
	Read = define(Row{Kind: 2, Name: "Read", Relayed: true, Repeats: true,
		Request: "partition, offset, most bytes", Answer: "high watermark, log start, batches"}, readCall)
	Await = define(Row{Kind: 3, Name: "Await", Relayed: true, Repeats: true,
		Request: "partition, offset", Answer: "nothing, when there is something to read"}, awaitCall)
	ListOffsets = define(Row{Kind: 4, Name: "ListOffsets", Relayed: true, Repeats: true,
		Request: "partition, time, most offsets", Answer: "offsets of segments"}, listOffsetsCall)
	Leader = define(Row{Kind: 5, Name: "Leader", Repeats: true,
		Request: "partition", Answer: "an error with the leader in it, when it is known"}, leaderCall)
	Describe = define(Row{Kind: 6, Name: "Describe", Repeats: true,
		Request: "partition, entry of the snapshot that is there", Answer: "what must be known to copy the rest"}, describeCall)
	Entries = define(Row{Kind: 7, Name: "Entries", Repeats: true,
		Request: "partition, first and last entry, most bytes", Answer: "entries"}, entriesCall)
	Applied = define(Row{Kind: 8, Name: "Applied", Repeats: true,
		Request: "partition", Answer: "the last entry that is applied there"}, appliedCall)
	AppendInLine = define(Row{Kind: 14, Name: "AppendInLine", Relayed: true, FeatureLevel: LineFeatureLevel,
		Request: "partition, term that is meant or 0, place in a connection's line, batches", Answer: "of each batch: offset, log start, time, error"}, appendInLineCall)
	AppendTransactional = define(Row{Kind: 15, Name: "AppendTransactional", Relayed: true, FeatureLevel: fsm.LevelTransactions,
		Request: "as AppendInLine, whether the partition is to be added, transactional id, batches", Answer: "of each batch: offset, log start, time, error"}, appendTransactionalCall)
	WriteMarkers = define(Row{Kind: 16, Name: "WriteMarkers", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelTransactions,
		Request: "partition, term that is meant or 0, markers", Answer: "of each marker: error, or that the producer's next transaction is open behind it"}, writeMarkersCall)
	ReadStable = define(Row{Kind: 17, Name: "ReadStable", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelTransactions,
		Request: "partition, offset, most bytes, isolation level", Answer: "high watermark, last stable offset, log start, aborted transactions, batches"}, readStableCall)
	AwaitStable = define(Row{Kind: 18, Name: "AwaitStable", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelTransactions,
		Request: "partition, offset", Answer: "nothing, when there is something to read below the last stable offset"}, awaitCall)
	LastStable = define(Row{Kind: 19, Name: "LastStable", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelTransactions,
		Request: "partition", Answer: "last stable offset"}, lastStableCall)
	Leave = define(Row{Kind: 9, Name: "Leave", Repeats: true,
		Request: "partition; the caller's replica leaves its group", Answer: "the leader's term"}, leaveCall)

	CatalogApply = define(Row{Kind: 10, Name: "CatalogApply", Relayed: true,
		Request: "a command of the catalog", Answer: "where it is in the catalog"}, catalogApplyCall)
	CreateTopic = define(Row{Kind: 11, Name: "CreateTopic", Relayed: true,
		Request: "a topic and its id", Answer: "where it is in the catalog"}, createTopicCall)
	CatalogIndex = define(Row{Kind: 12, Name: "CatalogIndex", Relayed: true,
		Request: "nothing", Answer: "how far the confirmed leader's catalog is"}, catalogIndexCall)
	CatalogKnown = define(Row{Kind: 13, Name: "CatalogKnown", Relayed: true,
		Request: "place in the catalog", Answer: "nothing, when the node asked has come that far"}, catalogKnownCall)

	Form = define(Row{Kind: 20, Name: "Form", Early: true,
		Request: "the first nodes of a cluster", Answer: "nothing, when it is agreed to"}, formCall)
	Join = define(Row{Kind: 21, Name: "Join", Early: true,
		Request: "a node", Answer: "the id of its cluster from now on"}, joinCall)

	ReplicaStatus = define(Row{Kind: 30, Name: "ReplicaStatus", Relayed: true,
		Request: "nothing", Answer: "what the node says of its replicas and its disk"}, replicaStatusCall)
	Survey = define(Row{Kind: 31, Name: "Survey", Early: true,
		Request: "groups", Answer: "of each: how its member there stands"}, surveyCall)
	Stand = define(Row{Kind: 32, Name: "Stand", Early: true,
		Request: "groups and terms", Answer: "nothing; they stand for election if nothing has changed"}, standCall)
	Member = define(Row{Kind: 33, Name: "Member", Repeats: true,
		Request: "nothing", Answer: "whether the caller belongs to the cluster"}, memberCall)

	OffsetForTime = define(Row{Kind: 40, Name: "OffsetForTime", Relayed: true, Repeats: true,
		Request: "partition, time", Answer: "nothing, or offset, time, epoch"}, offsetForTimeCall)
	EpochEnd = define(Row{Kind: 41, Name: "EpochEnd", Relayed: true, Repeats: true,
		Request: "partition, epoch", Answer: "epoch, offset"}, epochEndCall)

	CreatePartitions = define(Row{Kind: 50, Name: "CreatePartitions", Relayed: true,
		Request: "topic, partitions in all and so far", Answer: "where it is in the catalog"}, createPartitionsCall)
	DeleteRecords = define(Row{Kind: 51, Name: "DeleteRecords", Relayed: true, Repeats: true,
		Request: "partition, offset", Answer: "log start"}, deleteRecordsCall)
	Producers = define(Row{Kind: 52, Name: "Producers", Relayed: true, Repeats: true,
		Request: "partition", Answer: "its idempotent producers"}, producersCall)

	Restore = define(Row{Kind: 53, Name: "Restore", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelRestore,
		Request: "partition, whether these are the last, batches of a backup", Answer: "next offset"}, restoreCall)

	Full = define(Row{Kind: 60, Name: "Full",
		Request: "whether the caller's disk is full", Answer: "nothing"}, fullCall)
	Hash = define(Row{Kind: 61, Name: "Hash", Relayed: true, Repeats: true,
		Request: "partition, offsets from and to, most bytes", Answer: "offset reached, bytes, SHA-256"}, hashCall)

	Coordinate = define(Row{Kind: 70, Name: "Coordinate", Relayed: true,
		Request: "shard, client, request of a consumer group or a transaction", Answer: "Kafka's response"}, coordinateCall)
	CreateShards = define(Row{Kind: 71, Name: "CreateShards", Relayed: true,
		Request: "nothing", Answer: "where the shards are in the catalog"}, createShardsCall)

	EndOffsets = define(Row{Kind: 72, Name: "EndOffsets", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelTransactions,
		Request: "shard, group, marker of a transaction", Answer: "nothing, when the group's offsets are committed or dropped"}, endOffsetsCall)

	HoldCommits = define(Row{Kind: 73, Name: "HoldCommits", Relayed: true, Repeats: true, FeatureLevel: fsm.LevelHolds,
		Request: "shard, hold to let go of or 0", Answer: "hold, when commits are held and none is under way; 0: the one to let go did not stand all along"}, holdCommitsCall)

	Administer = define(Row{Kind: 80, Name: "Administer", Relayed: true,
		Request: "what an operator asks", Answer: "where it is in the catalog"}, administerCall)

	AlterACLs = define(Row{Kind: 81, Name: "AlterACLs", Relayed: true, FeatureLevel: 4,
		Request: "ACLs to add, filters of those to remove", Answer: "where it is in the catalog, and what was removed"}, alterACLsCall)

	Relay = define(Row{Kind: 90, Name: "Relay", FeatureLevel: 3,
		Request: "a call to a third node", Answer: "that node's whole answer"}, relayCall)
	Who = define(Row{Kind: 91, Name: "Who", Repeats: true, FeatureLevel: 3,
		Request: "group", Answer: "an error with the leader in it, when it is known"}, whoCall)
	Twin = define(Row{Kind: 92, Name: "Twin", Early: true, Repeats: true, FeatureLevel: 3,
		Request: "a random number", Answer: "which process this is, and a proof that it has its data directory"}, twinCall)
)

var table [256]Row

// define puts a call into the table. A number that is taken is a mistake of the program.
func define[Q, A any](row Row, c Call[Q, A]) *Call[Q, A] {
	if row.Kind == 0 || table[row.Kind].Kind != 0 {
		panic(fmt.Sprintf("calls: number %d of %s is taken", row.Kind, row.Name))
	}
	table[row.Kind] = row
	c.Row = row
	return &c
}

// Table gives all calls in the order of their numbers.
func Table() []Row {
	return slices.DeleteFunc(slices.Clone(table[:]), func(r Row) bool { return r.Kind == 0 })
}

// ByKind gives the call with that number; known is false if there is none.
func ByKind(kind uint8) (row Row, known bool) {
	row = table[kind]
	return row, row.Kind != 0
}

// WriteTable writes the table as docs/calls.md has it.
func WriteTable(w io.Writer) {
	fmt.Fprint(w, "| number | call | request | answer | |\n|---|---|---|---|---|\n")
	for _, row := range Table() {
		var notes []string
		for _, note := range []struct {
			holds bool
			text  string
		}{{row.Relayed, "relayed"}, {row.Repeats, "repeats"}, {row.Early, "early"}, {row.FeatureLevel > 0, fmt.Sprintf("level %d", row.FeatureLevel)}} {
			if note.holds {
				notes = append(notes, note.text)
			}
		}
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s |\n", row.Kind, row.Name, row.Request, row.Answer, strings.Join(notes, ", "))
	}
}
