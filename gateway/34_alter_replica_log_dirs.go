package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterReplicaLogDirs, versions 0 to 2 (KIP-113).
//
// Kept: to move a partition into the directory where it is already moves nothing and is no
// error. The broker has one, as DescribeLogDirs says; any other is LOG_DIR_NOT_FOUND. A partition
// that is not there is UNKNOWN_TOPIC_OR_PARTITION.

func handleAlterReplicaLogDirs(r *request) {
	req := r.body.(*kmsg.AlterReplicaLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	s := r.conn.server
	topics := s.catalog.Topics()
	for _, d := range req.Dirs {
		for _, t := range d.Topics {
			rt := kmsg.NewAlterReplicaLogDirsResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				rp.Partition = p
				if d.Dir != logDir {
					rp.ErrorCode = r.note(kerr.LogDirNotFound.Code)
				} else if !topics.Has(t.Topic, p) {
					rp.ErrorCode = r.fail(s.unknownTopic())
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
	}
	r.answer(resp)
}
