package kafkaproto

import (
	"fmt"
	"io"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// API is one line of the table of served APIs.
type API struct {
	Key      kmsg.Key
	Name     string
	Min, Max int16  // versions served, both inclusive
	Note     string // one sentence for docs/protocol.md
}

// Served is the only list of APIs and versions: ApiVersions answers with it,
// requests are dispatched by it, and docs/protocol.md is written from it. It is
// in order of key. What a version's request looks like comes from kmsg (see shape).
// Do not change it.
var Served = []API{
	{
		Key: kmsg.Produce, Name: "Produce", Min: 0, Max: 13,
		Note: "Message sets of magic 0 and 1 up to version 2, record batches from 3 on.",
	},
	{
		Key: kmsg.Fetch, Name: "Fetch", Min: 0, Max: 18,
		Note: "Message sets of magic 0 in versions 0 and 1, of magic 1 in 2 and 3, record batches from 4 on. No fetch sessions.",
	},
	{
		Key: kmsg.ListOffsets, Name: "ListOffsets", Min: 0, Max: 11,
		Note: "Version 0: offsets of log segments, as in 0.8. From 1 on one offset: latest, earliest, by time, of the largest time.",
	},
	{
		Key: kmsg.Metadata, Name: "Metadata", Min: 0, Max: 13,
		Note: "One broker: the cluster, at the address the client used; with `--list-gateways` or `--show-replicas` the nodes.",
	},
	{
		Key: kmsg.OffsetCommit, Name: "OffsetCommit", Min: 0, Max: 10,
		Note: "To the coordinator of the group, which keeps it in a Raft group.",
	},
	{
		Key: kmsg.OffsetFetch, Name: "OffsetFetch", Min: 0, Max: 10,
		Note: "A group never seen is empty.",
	},
	{
		Key: kmsg.FindCoordinator, Name: "FindCoordinator", Min: 0, Max: 6,
		Note: "The one broker; where nodes are shown, one that leads the group's shard.",
	},
	{
		Key: kmsg.JoinGroup, Name: "JoinGroup", Min: 0, Max: 9,
		Note: "The classic protocol of consumer groups.",
	},
	{
		Key: kmsg.Heartbeat, Name: "Heartbeat", Min: 0, Max: 4,
	},
	{
		Key: kmsg.LeaveGroup, Name: "LeaveGroup", Min: 0, Max: 5,
	},
	{
		Key: kmsg.SyncGroup, Name: "SyncGroup", Min: 0, Max: 5,
	},
	{
		Key: kmsg.DescribeGroups, Name: "DescribeGroups", Min: 0, Max: 6,
	},
	{
		Key: kmsg.ListGroups, Name: "ListGroups", Min: 0, Max: 5,
		Note: "Those of all coordinators.",
	},
	{
		Key: kmsg.SASLHandshake, Name: "SASLHandshake", Min: 0, Max: 1,
		Note: "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; without `--sasl-mechanisms` ILLEGAL_SASL_STATE.",
	},
	{
		Key: kmsg.ApiVersions, Name: "ApiVersions", Min: 0, Max: 5,
		Note: "A version above is answered in version 0 with UNSUPPORTED_VERSION (KIP-35, KIP-511).",
	},
	{
		Key: kmsg.CreateTopics, Name: "CreateTopics", Min: 0, Max: 7,
		Note: "Partition count and replication factor -1 stand for the cluster's defaults (KIP-464).",
	},
	{
		Key: kmsg.DeleteTopics, Name: "DeleteTopics", Min: 0, Max: 6,
		Note: "By name, from version 6 on also by id.",
	},
	{
		Key: kmsg.DeleteRecords, Name: "DeleteRecords", Min: 0, Max: 2,
		Note: "The log start offset moves at once; disk space is freed by whole segments.",
	},
	{
		Key: kmsg.InitProducerID, Name: "InitProducerID", Min: 0, Max: 5,
		Note: "For idempotent and transactional producers. No two-phase commit (KIP-939).",
	},
	{
		Key: kmsg.OffsetForLeaderEpoch, Name: "OffsetForLeaderEpoch", Min: 0, Max: 4,
		Note: "Leader epochs are terms of the partition's Raft group.",
	},
	{
		Key: kmsg.AddPartitionsToTxn, Name: "AddPartitionsToTxn", Min: 0, Max: 5,
		Note: "From version 4 on for who has CLUSTER_ACTION, as brokers have.",
	},
	{
		Key: kmsg.AddOffsetsToTxn, Name: "AddOffsetsToTxn", Min: 0, Max: 4,
	},
	{
		Key: kmsg.EndTxn, Name: "EndTxn", Min: 0, Max: 5,
		Note: "Version 5 begins the next transaction's epoch (KIP-890).",
	},
	{
		Key: kmsg.WriteTxnMarkers, Name: "WriteTxnMarkers", Min: 0, Max: 2,
		Note: "For operators: it ends what hangs (KIP-664).",
	},
	{
		Key: kmsg.TxnOffsetCommit, Name: "TxnOffsetCommit", Min: 0, Max: 5,
		Note: "Pending until the transaction ends.",
	},
	{
		Key: kmsg.DescribeACLs, Name: "DescribeACLs", Min: 0, Max: 3,
		Note: "SECURITY_DISABLED, as a broker without an authorizer, unless nodes run with `--authorize`.",
	},
	{
		Key: kmsg.CreateACLs, Name: "CreateACLs", Min: 0, Max: 3,
		Note: "As DescribeACLs.",
	},
	{
		Key: kmsg.DeleteACLs, Name: "DeleteACLs", Min: 0, Max: 3,
		Note: "As DescribeACLs.",
	},
	{
		Key: kmsg.DescribeConfigs, Name: "DescribeConfigs", Min: 0, Max: 4,
		Note: "Topics and the broker.",
	},
	{
		Key: kmsg.AlterConfigs, Name: "AlterConfigs", Min: 0, Max: 2,
		Note: "Topics, and of the broker what has no effect here.",
	},
	{
		Key: kmsg.AlterReplicaLogDirs, Name: "AlterReplicaLogDirs", Min: 0, Max: 2,
		Note: "There is one directory, where every partition is.",
	},
	{
		Key: kmsg.DescribeLogDirs, Name: "DescribeLogDirs", Min: 0, Max: 5,
		Note: "One directory stands for those of all nodes.",
	},
	{
		Key: kmsg.SASLAuthenticate, Name: "SASLAuthenticate", Min: 0, Max: 2,
		Note: "Sessions may have an end (KIP-368).",
	},
	{
		Key: kmsg.CreatePartitions, Name: "CreatePartitions", Min: 0, Max: 3,
		Note: "The cluster places them.",
	},
	{
		Key: kmsg.DeleteGroups, Name: "DeleteGroups", Min: 0, Max: 3,
	},
	{
		Key: kmsg.ElectLeaders, Name: "ElectLeaders", Min: 0, Max: 2,
		Note: "ELECTION_NOT_NEEDED: the one broker leads every partition.",
	},
	{
		Key: kmsg.IncrementalAlterConfigs, Name: "IncrementalAlterConfigs", Min: 0, Max: 1,
		Note: "As AlterConfigs.",
	},
	{
		Key: kmsg.AlterPartitionAssignments, Name: "AlterPartitionAssignments", Min: 0, Max: 1,
		Note: "AlterPartitionReassignments of KIP-455. To broker 1, where it is, changes nothing; else refused: the cluster places replicas.",
	},
	{
		Key: kmsg.ListPartitionReassignments, Name: "ListPartitionReassignments", Min: 0, Max: 0,
		Note: "Always none.",
	},
	{
		Key: kmsg.OffsetDelete, Name: "OffsetDelete", Min: 0, Max: 0,
	},
	{
		Key: kmsg.DescribeClientQuotas, Name: "DescribeClientQuotas", Min: 0, Max: 1,
		Note: "Always none.",
	},
	{
		Key: kmsg.DescribeUserSCRAMCredentials, Name: "DescribeUserSCRAMCredentials", Min: 0, Max: 0,
		Note: "Those of the catalog.",
	},
	{
		Key: kmsg.AlterUserSCRAMCredentials, Name: "AlterUserSCRAMCredentials", Min: 0, Max: 0,
		Note: "Both mechanisms of a user may be in one request.",
	},
	{
		Key: kmsg.DescribeQuorum, Name: "DescribeQuorum", Min: 0, Max: 2,
		Note: "The catalog's Raft group.",
	},
	{
		Key: kmsg.UpdateFeatures, Name: "UpdateFeatures", Min: 0, Max: 2,
		Note: "No feature can be updated; what is new is used when all nodes know it.",
	},
	{
		Key: kmsg.DescribeCluster, Name: "DescribeCluster", Min: 0, Max: 2,
		Note: "One broker, as in Metadata.",
	},
	{
		Key: kmsg.DescribeProducers, Name: "DescribeProducers", Min: 0, Max: 0,
		Note: "Idempotent and transactional producers.",
	},
	{
		Key: kmsg.DescribeTransactions, Name: "DescribeTransactions", Min: 0, Max: 0,
	},
	{
		Key: kmsg.ListTransactions, Name: "ListTransactions", Min: 0, Max: 2,
		Note: "Those of all coordinators.",
	},
	{
		Key: kmsg.ListConfigResources, Name: "ListConfigResources", Min: 0, Max: 1,
		Note: "Topics and the broker.",
	},
	{
		Key: kmsg.DescribeTopicPartitions, Name: "DescribeTopicPartitions", Min: 0, Max: 0,
		Note: "As Metadata, in pages.",
	},
}

// Lookup finds the table's line for an API key.
func Lookup(key int16) (API, bool) {
	for i := range Served {
		if int16(Served[i].Key) == key {
			return Served[i], true
		}
	}
	return API{}, false
}

// Serves reports whether the version is one of those served.
func (a API) Serves(version int16) bool { return a.Min <= version && version <= a.Max }

// WriteTable writes the table of served APIs as Markdown.
func WriteTable(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| key | API | versions | |\n|---|---|---|---|\n")
	for _, a := range Served {
		versions := fmt.Sprint(a.Min)
		if a.Max > a.Min {
			versions = fmt.Sprintf("%d to %d", a.Min, a.Max)
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", a.Key.Int16(), a.Name, versions, a.Note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
