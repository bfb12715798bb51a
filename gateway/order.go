package gateway

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a request of a connection sees of those that were read before it. A broker of Kafka's
// finishes a request before it reads the connection's next one; here requests overlap, and what
// can be told from outside must be the same: what changes something is seen by what comes behind it.

// effect is what a request does to what others see.
type effect int8

const (
	// looks: it shows what is there, and so waits for the produces before it.
	looks effect = iota
	// appends: it puts records into partitions. Produces overlap; their lines keep their order.
	appends
	// changes: topics, configurations, or what a partition still has. It waits for all before it,
	// and nothing behind it begins before it is answered.
	changes
	// inTurn: it is about consumer groups, whose turns keep the order. See turns.
	inTurn
	// blind: it depends on nothing that a connection's requests do.
	blind
)

// effects has a line for each API that is served.
var effects = map[kmsg.Key]effect{
	kmsg.Produce:     appends,
	kmsg.Fetch:       looks,
	kmsg.ListOffsets: looks,
	kmsg.Metadata:    looks,
	kmsg.ApiVersions: blind,

	kmsg.OffsetCommit:    inTurn,
	kmsg.OffsetFetch:     inTurn,
	kmsg.FindCoordinator: blind,
	kmsg.JoinGroup:       inTurn,
	kmsg.Heartbeat:       inTurn,
	kmsg.LeaveGroup:      inTurn,
	kmsg.SyncGroup:       inTurn,
	kmsg.DescribeGroups:  inTurn,
	kmsg.ListGroups:      inTurn,
	kmsg.DeleteGroups:    inTurn,
	kmsg.OffsetDelete:    inTurn,

	kmsg.CreateTopics:              changes,
	kmsg.DeleteTopics:              changes,
	kmsg.CreatePartitions:          changes,
	kmsg.DeleteRecords:             changes,
	kmsg.AlterConfigs:              changes,
	kmsg.IncrementalAlterConfigs:   changes,
	kmsg.AlterPartitionAssignments: changes,
	AdministerKey:                  changes,

	kmsg.InitProducerID:       blind,
	kmsg.OffsetForLeaderEpoch: looks,
	kmsg.DescribeProducers:    looks,
	kmsg.DescribeLogDirs:      looks,
	kmsg.DescribeConfigs:      looks,
	StatusKey:                 looks,
	ReplicaCheckKey:           looks,

	kmsg.SASLHandshake:                blind,
	kmsg.SASLAuthenticate:             blind,
	kmsg.DescribeACLs:                 blind,
	kmsg.CreateACLs:                   blind,
	kmsg.DeleteACLs:                   blind,
	kmsg.AlterReplicaLogDirs:          blind,
	kmsg.ElectLeaders:                 blind,
	kmsg.ListPartitionReassignments:   looks,
	kmsg.DescribeClientQuotas:         blind,
	kmsg.DescribeUserSCRAMCredentials: blind,
	kmsg.DescribeQuorum:               looks,
	kmsg.UpdateFeatures:               blind,
	kmsg.DescribeCluster:              looks,
	kmsg.ListConfigResources:          looks,
	kmsg.DescribeTopicPartitions:      looks,
}

// order is what a connection's reader remembers of requests that are not answered yet, maxPending
// at most. Only the reader uses it.
type order struct {
	change   <-chan struct{}   // closed when the last change that was read is answered; nil: none was
	produces []<-chan struct{} // of the produces behind that
	looks    []<-chan struct{} // of those that look, behind that
}

// admit waits until what the request has to see is there, as far as the reader has to, and puts
// it behind the others. What it still has to wait for before it looks is left in r.before:
// answers are sent in order, so waiting there holds up nobody.
func (o *order) admit(r *request, what effect) {
	if o.change != nil {
		<-o.change
		o.change = nil
	}
	o.produces, o.looks = unanswered(o.produces), unanswered(o.looks)
	switch what {
	case appends:
		o.produces = append(o.produces, r.reply.done)
	case looks:
		r.before = slices.Clone(o.produces)
		o.looks = append(o.looks, r.reply.done)
	case changes:
		r.before = slices.Concat(o.produces, o.looks)
		o.change, o.produces, o.looks = r.reply.done, nil, nil
	}
}

// unanswered leaves out the answers that are there.
func unanswered(list []<-chan struct{}) []<-chan struct{} {
	return slices.DeleteFunc(list, func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}
