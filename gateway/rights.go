package gateway

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security/acl"
)

// rights is what an API needs of who calls it: an operation for each kind of resource, 0 where the
// API has none of that kind. Kafka's KafkaApis and ControllerApis ask for the same.
type rights struct {
	// cluster is needed for the whole request. Without it serve answers in the handler's place, by
	// refuse.
	cluster acl.Operation
	// instead, on the cluster, is as good as what is needed of each topic or group.
	instead acl.Operation
	// topic, group and transactionalID are needed of each resource that a request names. What is
	// asked for without a name, as "all topics", leaves out those that the caller has no right to.
	topic, group, transactionalID acl.Operation
	// configs, of a topic, a group, or the cluster where it is the broker's.
	configs acl.Operation
	also    string // what else, for docs/security.md
	denied  string // what is answered, for docs/security.md
	// free: nothing is needed. Each row says something.
	free bool
}

const (
	topicDenied   = "TOPIC_AUTHORIZATION_FAILED"
	groupDenied   = "GROUP_AUTHORIZATION_FAILED"
	clusterDenied = "CLUSTER_AUTHORIZATION_FAILED"
)

// apiRights has a row for each API of apis. One without a row is refused to everybody but super
// users, and a test fails.
var apiRights = map[kmsg.Key]rights{
	kmsg.Produce: {topic: acl.Write, transactionalID: acl.Write,
		denied: topicDenied + " per partition, with acks=0 the connection ends; TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
	kmsg.Fetch:       {topic: acl.Read, denied: topicDenied + " per partition; looked at again while it waits"},
	kmsg.ListOffsets: {topic: acl.Describe, denied: topicDenied + " per partition"},
	kmsg.Metadata: {topic: acl.Describe, also: "to create a topic by naming it, CREATE of the cluster or of the topic",
		denied: topicDenied + " without id and partitions, whether the topic is there or not"},
	kmsg.OffsetCommit:    {group: acl.Read, topic: acl.Read, denied: groupDenied + "; " + topicDenied + " per partition"},
	kmsg.OffsetFetch:     {group: acl.Describe, topic: acl.Describe, denied: groupDenied + "; " + topicDenied + " per partition"},
	kmsg.FindCoordinator: {group: acl.Describe, transactionalID: acl.Describe, denied: groupDenied + ", TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
	kmsg.JoinGroup:       {group: acl.Read, denied: groupDenied + "; looked at again while it waits"},
	kmsg.Heartbeat:       {group: acl.Read, denied: groupDenied},
	kmsg.LeaveGroup:      {group: acl.Read, denied: groupDenied},
	kmsg.SyncGroup:       {group: acl.Read, denied: groupDenied + "; looked at again while it waits"},
	kmsg.DescribeGroups:  {group: acl.Describe, denied: groupDenied + " per group"},
	kmsg.ListGroups:      {group: acl.Describe, instead: acl.Describe, denied: "left out"},

	kmsg.SASLHandshake:    {free: true},
	kmsg.SASLAuthenticate: {free: true},
	kmsg.ApiVersions:      {free: true},

	kmsg.CreateTopics: {topic: acl.Create, instead: acl.Create, also: "to see the configurations of what was created, DESCRIBE_CONFIGS of the topic",
		denied: topicDenied},
	kmsg.DeleteTopics:  {topic: acl.Delete, instead: acl.Delete, also: "to hear that there is none, or the name of an id, DESCRIBE of the topic", denied: topicDenied},
	kmsg.DeleteRecords: {topic: acl.Delete, denied: topicDenied + " per partition"},
	kmsg.InitProducerID: {instead: acl.IdempotentWrite, transactionalID: acl.Write, also: "WRITE of any topic is as good",
		denied: clusterDenied + "; TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
	kmsg.AddPartitionsToTxn: {transactionalID: acl.Write, topic: acl.Write, also: "from version 4 on only CLUSTER_ACTION of the cluster",
		denied: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED; " + topicDenied + " per partition; " + clusterDenied},
	kmsg.AddOffsetsToTxn: {transactionalID: acl.Write, group: acl.Read, denied: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED; " + groupDenied},
	kmsg.EndTxn:          {transactionalID: acl.Write, denied: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"},
	kmsg.WriteTxnMarkers: {instead: acl.Alter, also: "CLUSTER_ACTION of the cluster is as good", denied: clusterDenied + " per partition"},
	kmsg.TxnOffsetCommit: {transactionalID: acl.Write, group: acl.Read, topic: acl.Read,
		denied: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED, " + groupDenied + "; " + topicDenied + " per partition"},
	kmsg.OffsetForLeaderEpoch: {topic: acl.Describe, denied: topicDenied + " per partition"},

	kmsg.DescribeACLs: {cluster: acl.Describe, denied: clusterDenied},
	kmsg.CreateACLs:   {cluster: acl.Alter, denied: clusterDenied + " for each entry"},
	kmsg.DeleteACLs:   {cluster: acl.Alter, denied: clusterDenied + " for each entry"},

	kmsg.DescribeConfigs:         {configs: acl.DescribeConfigs, denied: topicDenied + ", " + groupDenied + ", " + clusterDenied},
	kmsg.AlterConfigs:            {configs: acl.AlterConfigs, denied: topicDenied + ", " + groupDenied + ", " + clusterDenied},
	kmsg.IncrementalAlterConfigs: {configs: acl.AlterConfigs, denied: topicDenied + ", " + groupDenied + ", " + clusterDenied},

	kmsg.AlterReplicaLogDirs: {cluster: acl.Alter, denied: clusterDenied + " per partition"},
	kmsg.DescribeLogDirs:     {cluster: acl.Describe, denied: clusterDenied + ", from version 3 on; no directories"},
	kmsg.CreatePartitions:    {topic: acl.Alter, denied: topicDenied},
	kmsg.DeleteGroups:        {group: acl.Delete, denied: groupDenied + " per group"},
	kmsg.ElectLeaders:        {cluster: acl.Alter, denied: clusterDenied},

	kmsg.AlterPartitionAssignments:  {cluster: acl.Alter, denied: clusterDenied},
	kmsg.ListPartitionReassignments: {cluster: acl.Describe, denied: clusterDenied},
	kmsg.OffsetDelete:               {group: acl.Delete, topic: acl.Read, denied: groupDenied + "; " + topicDenied + " per partition"},
	kmsg.DescribeClientQuotas:       {cluster: acl.DescribeConfigs, denied: clusterDenied},

	kmsg.DescribeUserSCRAMCredentials: {cluster: acl.Describe, denied: clusterDenied},
	kmsg.AlterUserSCRAMCredentials:    {cluster: acl.Alter, denied: clusterDenied + " for each user"},

	kmsg.DescribeQuorum: {cluster: acl.Describe, denied: clusterDenied},
	kmsg.UpdateFeatures: {cluster: acl.Alter, denied: clusterDenied},
	kmsg.DescribeCluster: {free: true, also: "to see authorized operations, DESCRIBE of the cluster",
		denied: "no operations"},
	kmsg.DescribeProducers: {topic: acl.Read, denied: topicDenied + " per partition"},
	kmsg.DescribeTransactions: {transactionalID: acl.Describe, also: "to see a topic in it, DESCRIBE of the topic",
		denied: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED per id; topics are left out"},
	kmsg.ListTransactions:        {transactionalID: acl.Describe, denied: "left out"},
	kmsg.ListConfigResources:     {cluster: acl.DescribeConfigs, denied: clusterDenied},
	kmsg.DescribeTopicPartitions: {topic: acl.Describe, denied: topicDenied},

	StatusKey: {topic: acl.Describe, instead: acl.Describe, also: "without DESCRIBE of the cluster only topics, and no addresses of nodes",
		denied: clusterDenied + " where no topic may be described"},
	ReplicaCheckKey: {cluster: acl.Alter, also: "one at a time per node", denied: clusterDenied},
	AdministerKey:   {cluster: acl.Alter, denied: clusterDenied},
	BackupKey:       {cluster: acl.Alter, also: "whoever has it reads all users' credentials", denied: clusterDenied},
	TokenKey: {free: true, also: "to have one issued, a login, and not by such a token; to revoke and to rotate keys, ALTER of the cluster, to list them DESCRIBE",
		denied: "no token; " + clusterDenied},
}

// ownNames are the names of the APIs that kafkaproto's table does not have.
var ownNames = map[kmsg.Key]string{StatusKey: "Status", ReplicaCheckKey: "ReplicaCheck", AdministerKey: "Administer", TokenKey: "Token", BackupKey: "Backup"}

func apiName(key kmsg.Key) string {
	if api, ok := kafkaproto.Lookup(int16(key)); ok {
		return api.Name
	}
	return cmp.Or(ownNames[key], "unknown")
}

// needs says in words what the row needs.
func (r rights) needs() string {
	var all []string
	add := func(op acl.Operation, of string) {
		if op != 0 {
			all = append(all, strings.ToUpper(strings.ReplaceAll(op.String(), "-", "_"))+" of "+of)
		}
	}
	add(r.cluster, "the cluster")
	add(r.group, "the group")
	add(r.topic, "the topic")
	add(r.transactionalID, "the transactional id")
	add(r.configs, "the topic or group, of the cluster for the broker")
	text := strings.Join(all, ", ")
	if r.instead != 0 {
		all = nil
		add(r.instead, "the cluster")
		if text != "" {
			all[0] += ", or " + text
		}
		text = all[0]
	}
	if text == "" {
		text = "nothing"
	}
	if r.also != "" {
		text += "; " + r.also
	}
	return text
}

// WriteRights writes what each API needs, as docs/security.md has it.
func WriteRights(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| key | API | needs | denied |\n|---|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(apiRights)) {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", key, apiName(key), apiRights[key].needs(), apiRights[key].denied)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
