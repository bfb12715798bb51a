package gateway

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// What each API says in each version of a partition that is not there, or whose leader has another
// epoch than the client knows: testdata/partitions.txt has it, one line per API and case, first of
// a node that serves and then of one that has just started.
func TestWhatIsSaidOfPartitionsThatAreNotThere(t *testing.T) {
	var got strings.Builder
	for _, state := range []string{"ready", "starting"} {
		f := newFake(t, "events:2")
		if state == "starting" {
			f.ready = func() error { return errors.New("not yet") }
		}
		c := serve(t, f, nil).dial()
		for _, api := range kafkaproto.Served {
			for _, which := range []struct {
				name, topic      string
				partition, epoch int32
			}{
				{"no such topic", "nothing", 0, -1}, {"partition -1", "events", -1, -1}, {"partition 2 of 2", "events", 2, -1},
				{"older epoch", "events", 0, 0}, {"newer epoch", "events", 0, 2}, {"newer epoch of none", "events", 2, 2},
			} {
				var codes []string
				for v := api.Min; v <= api.Max; v++ {
					id := [16]byte{15: 99}
					if topic, ok := f.Topics().Lookup(which.topic); ok {
						id = topic.ID
					}
					req := aboutPartition(api.Key, v, which.topic, id, which.partition, which.epoch)
					if req == nil {
						break
					}
					code := fmt.Sprint(partitionCode(c.ask(req)))
					if n := len(codes); n > 0 && strings.HasSuffix(codes[n-1], ": "+code) {
						from, _, _ := strings.Cut(strings.TrimSuffix(codes[n-1], ": "+code), "-")
						codes[n-1] = fmt.Sprintf("%s-%d: %s", from, v, code)
					} else {
						codes = append(codes, fmt.Sprintf("v%d: %s", v, code))
					}
				}
				if codes != nil {
					fmt.Fprintf(&got, "%s, %s, %s: %s\n", state, api.Name, which.name, strings.Join(codes, ", "))
				}
			}
		}
	}
	const file = "testdata/partitions.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s is not what is said:\n%s", file, got.String())
	}
}

// aboutPartition makes a request about one partition, nil for an API that takes none.
func aboutPartition(key kmsg.Key, version int16, topic string, id [16]byte, partition, epoch int32) kmsg.Request {
	switch key {
	case kmsg.Produce:
		records := messageSet("a")
		if version >= 3 {
			records = recordBatch("a")
		}
		return &kmsg.ProduceRequest{Version: version, Acks: -1, TimeoutMillis: 1000, Topics: []kmsg.ProduceRequestTopic{{
			Topic: topic, TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: records}},
		}}}
	case kmsg.Fetch:
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.PartitionMaxBytes = partition, epoch, 1000
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.SessionEpoch, req.MaxBytes = version, -1, 1000
		req.Topics = []kmsg.FetchRequestTopic{{Topic: topic, TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
		return req
	case kmsg.ListOffsets:
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = partition, epoch, -1
		return &kmsg.ListOffsetsRequest{Version: version, ReplicaID: -1, Topics: []kmsg.ListOffsetsRequestTopic{{
			Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p},
		}}}
	case kmsg.OffsetForLeaderEpoch:
		p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = partition, epoch, 1
		return &kmsg.OffsetForLeaderEpochRequest{Version: version, ReplicaID: -1, Topics: []kmsg.OffsetForLeaderEpochRequestTopic{{
			Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p},
		}}}
	case kmsg.OffsetCommit:
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition = partition
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group = version, "g"
		req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
		return req
	case kmsg.DeleteRecords:
		return &kmsg.DeleteRecordsRequest{Version: version, TimeoutMillis: 1000, Topics: []kmsg.DeleteRecordsRequestTopic{{
			Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: partition}},
		}}}
	case kmsg.DescribeProducers:
		return &kmsg.DescribeProducersRequest{Version: version, Topics: []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{partition}}}}
	case kmsg.AlterPartitionAssignments:
		return &kmsg.AlterPartitionAssignmentsRequest{Version: version, TimeoutMillis: 1000, Topics: []kmsg.AlterPartitionAssignmentsRequestTopic{{
			Topic: topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: partition}},
		}}}
	case kmsg.AlterReplicaLogDirs:
		return &kmsg.AlterReplicaLogDirsRequest{Version: version, Dirs: []kmsg.AlterReplicaLogDirsRequestDir{{
			Dir: logDir, Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: topic, Partitions: []int32{partition}}},
		}}}
	case kmsg.ElectLeaders:
		return &kmsg.ElectLeadersRequest{Version: version, Topics: []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: []int32{partition}}}}
	}
	return nil
}

// partitionCode is the error code of the answer's one partition.
func partitionCode(resp kmsg.Response) int64 {
	topic := reflect.ValueOf(resp).Elem().FieldByName("Topics").Index(0)
	return topic.FieldByName("Partitions").Index(0).FieldByName("ErrorCode").Int()
}
