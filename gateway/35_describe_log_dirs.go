package gateway

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
)

// DescribeLogDirs, versions 0 to 5 (KIP-113).
//
// Kept: the sizes of partitions, of those asked for or of all; what is not there is
// left out.
//
// Differs: the one broker has one directory, which stands for the data directories
// of all nodes. A partition counts once, with the size that it has at its leader; the
// disks' sizes (from version 4, KIP-827) are the sums over the nodes that answered.

// logDir is the name of that directory.
const logDir = "/trimaran"

func handleDescribeLogDirs(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DescribeLogDirsRequest)
		resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
		ctx, cancel := context.WithTimeout(r.reply.Open(), statusTimeout)
		defer cancel()
		status, err := r.conn.server.operations.Status(ctx)
		if err == nil && !r.catalogKnown() {
			err = errTopicComing // what is missing in the list is not gone
		}
		if err != nil {
			resp.ErrorCode = r.fail(err)
			r.answer(resp)
			return
		}
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir, dir.TotalBytes, dir.UsableBytes = logDir, 0, 0
		for _, n := range status.Nodes {
			dir.TotalBytes += n.DiskTotal
			dir.UsableBytes += n.DiskFree
		}
		if dir.TotalBytes == 0 {
			dir.TotalBytes, dir.UsableBytes = -1, -1 // not known
		}
		var asked map[string]map[int32]bool // nil: all
		if req.Topics != nil {
			asked = map[string]map[int32]bool{}
			for _, t := range req.Topics {
				if asked[t.Topic] == nil {
					asked[t.Topic] = map[int32]bool{}
				}
				for _, p := range t.Partitions {
					asked[t.Topic][p] = true
				}
			}
		}
		for _, t := range status.Topics {
			out := kmsg.NewDescribeLogDirsResponseDirTopic()
			out.Topic = t.Name
			for _, p := range t.Partitions {
				if asked != nil && !asked[t.Name][p.Partition] {
					continue
				}
				rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
				rp.Partition, rp.Size = p.Partition, logSize(&p)
				out.Partitions = append(out.Partitions, rp)
			}
			if len(out.Partitions) > 0 {
				dir.Topics = append(dir.Topics, out)
			}
		}
		resp.Dirs = append(resp.Dirs, dir)
		r.answer(resp)
	})
}

// logSize gives the bytes of a partition's log at its leader, without one those of
// its largest replica.
func logSize(p *admin.PartitionStatus) (size int64) {
	for _, replica := range p.Replicas {
		if replica.Node == p.Leader {
			return replica.Bytes
		}
		size = max(size, replica.Bytes)
	}
	return size
}
