package gateway

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/order"
)

// api is how one API is answered.
type api struct {
	effect order.Effect
	// handle answers a request that is decoded. It runs in the connection's reader: it puts in
	// order what must be, hands the rest to background, and returns. Exactly one of answer,
	// silence and hangUp must follow.
	handle func(*request)
	// own is handle for an API that is Trimaran's own and decodes its body itself. An error
	// ends the connection; the request is hung up then.
	own func(r *request, body []byte) error
}

// apis has all that are served.
var apis = map[kmsg.Key]api{
	kmsg.Produce:      {order.Appends, handleProduce, nil},
	kmsg.Fetch:        {order.Looks, handleFetch, nil},
	kmsg.ListOffsets:  {order.Looks, handleListOffsets, nil},
	kmsg.Metadata:     {order.Looks, handleMetadata, nil},
	kmsg.ApiVersions:  {order.Blind, handleApiVersions, nil},
	kmsg.CreateTopics: {order.Changes, handleCreateTopics, nil},
	kmsg.DeleteTopics: {order.Changes, handleDeleteTopics, nil},

	kmsg.OffsetCommit:    {order.InTurn, handleOffsetCommit, nil},
	kmsg.OffsetFetch:     {order.InTurn, handleOffsetFetch, nil},
	kmsg.FindCoordinator: {order.Blind, handleFindCoordinator, nil},
	kmsg.JoinGroup:       {order.InTurn, handleJoinGroup, nil},
	kmsg.Heartbeat:       {order.InTurn, handleHeartbeat, nil},
	kmsg.LeaveGroup:      {order.InTurn, handleLeaveGroup, nil},
	kmsg.SyncGroup:       {order.InTurn, handleSyncGroup, nil},
	kmsg.DescribeGroups:  {order.InTurn, handleDescribeGroups, nil},
	kmsg.ListGroups:      {order.InTurn, handleListGroups, nil},
	kmsg.DeleteGroups:    {order.InTurn, handleDeleteGroups, nil},
	kmsg.OffsetDelete:    {order.InTurn, handleOffsetDelete, nil},

	kmsg.DeleteRecords:                {order.Changes, handleDeleteRecords, nil},
	kmsg.InitProducerID:               {order.Blind, handleInitProducerID, nil},
	kmsg.DescribeConfigs:              {order.Looks, handleDescribeConfigs, nil},
	kmsg.AlterConfigs:                 {order.Changes, handleAlterConfigs, nil},
	kmsg.DescribeLogDirs:              {order.Looks, handleDescribeLogDirs, nil},
	kmsg.CreatePartitions:             {order.Changes, handleCreatePartitions, nil},
	kmsg.IncrementalAlterConfigs:      {order.Changes, handleIncrementalAlterConfigs, nil},
	kmsg.AlterPartitionAssignments:    {order.Changes, handleAlterPartitionReassignments, nil},
	kmsg.DescribeACLs:                 {order.Looks, handleDescribeACLs, nil},
	kmsg.CreateACLs:                   {order.Changes, handleCreateACLs, nil},
	kmsg.DeleteACLs:                   {order.Changes, handleDeleteACLs, nil},
	kmsg.ListPartitionReassignments:   {order.Looks, handleListPartitionReassignments, nil},
	kmsg.SASLHandshake:                {order.Blind, handleSASLHandshake, nil},
	kmsg.SASLAuthenticate:             {order.Blind, handleSASLAuthenticate, nil},
	kmsg.AlterReplicaLogDirs:          {order.Blind, handleAlterReplicaLogDirs, nil},
	kmsg.ElectLeaders:                 {order.Blind, handleElectLeaders, nil},
	kmsg.DescribeQuorum:               {order.Looks, handleDescribeQuorum, nil},
	kmsg.UpdateFeatures:               {order.Blind, handleUpdateFeatures, nil},
	kmsg.AddPartitionsToTxn:           {order.Transacts, handleAddPartitionsToTxn, nil},
	kmsg.AddOffsetsToTxn:              {order.Transacts, handleAddOffsetsToTxn, nil},
	kmsg.EndTxn:                       {order.Transacts, handleEndTxn, nil},
	kmsg.WriteTxnMarkers:              {order.Transacts, handleWriteTxnMarkers, nil},
	kmsg.TxnOffsetCommit:              {order.Transacts, handleTxnOffsetCommit, nil},
	kmsg.DescribeTransactions:         {order.Looks, handleDescribeTransactions, nil},
	kmsg.ListTransactions:             {order.Looks, handleListTransactions, nil},
	kmsg.DescribeProducers:            {order.Looks, handleDescribeProducers, nil},
	kmsg.OffsetForLeaderEpoch:         {order.Looks, handleOffsetForLeaderEpoch, nil},
	kmsg.DescribeCluster:              {order.Looks, handleDescribeCluster, nil},
	kmsg.DescribeClientQuotas:         {order.Blind, handleDescribeClientQuotas, nil},
	kmsg.DescribeUserSCRAMCredentials: {order.Looks, handleDescribeUserScramCredentials, nil},
	kmsg.AlterUserSCRAMCredentials:    {order.Changes, handleAlterUserScramCredentials, nil},
	kmsg.ListConfigResources:          {order.Looks, handleListConfigResources, nil},
	kmsg.DescribeTopicPartitions:      {order.Looks, handleDescribeTopicPartitions, nil},

	StatusKey:       {order.Looks, nil, (*request).serveStatus},
	ReplicaCheckKey: {order.Looks, nil, (*request).serveReplicaCheck},
	AdministerKey:   {order.Changes, nil, (*request).serveAdminister},
	TokenKey:        {order.Blind, nil, (*request).serveTokenRequest},
	BackupKey:       {order.Blind, nil, (*request).serveBackup},
}
