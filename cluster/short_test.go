package cluster

import (
	"github.com/trimaran-io/trimaran/cluster/route"
	"github.com/trimaran-io/trimaran/fsm"
)

func shardID(index int) fsm.PartitionID { return route.ShardID(index) }
