package gateway

import (
	"fmt"

	"github.com/trimaran-io/trimaran/outcome"
)

// A manual assignment (of CreateTopics, CreatePartitions and AlterPartitionReassignments) names
// brokers. Clients see one, which is the whole cluster: a partition that is assigned to it
// is placed by the cluster, with the replication factor that it would have anyway.

const placedByCluster = "replicas are placed by the cluster: assign to broker 1, or to none; " +
	"'trimaran topic alter' changes how many there are, 'trimaran node' which nodes have them"

// checkAssignment reports whether the brokers of a partition are the one that there is.
func checkAssignment(partition int32, brokers []int32) error {
	if len(brokers) != 1 || brokers[0] != BrokerID {
		return fmt.Errorf("%w: partition %d: %s", outcome.ErrInvalidAssignment, partition, placedByCluster)
	}
	return nil
}
