package calls

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

func groupRequest[R kmsg.Request](fill func(R)) R {
	var zero R
	req := kmsg.RequestForKey(zero.Key()).(R)
	version, _ := coordinator.Version(req.Key())
	req.SetVersion(version)
	fill(req)
	return req
}

func commitOf(group, topic string, offsets ...int64) *kmsg.OffsetCommitRequest {
	return groupRequest(func(req *kmsg.OffsetCommitRequest) {
		req.Group, req.Generation = group, -1
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for p, o := range offsets {
			tp := kmsg.NewOffsetCommitRequestTopicPartition()
			tp.Partition, tp.Offset = int32(p), o
			t.Partitions = append(t.Partitions, tp)
		}
		req.Topics = append(req.Topics, t)
	})
}

func TestWhatIsAskedOfACoordinatorTravels(t *testing.T) {
	id := fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: 3}
	client := coordinator.Client{ID: "c", Host: "/1.2.3.4", Version: 5}
	payload, err := putCoordinate(CoordinateRequest{id, client, commitOf("g", "a", 1, 2)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := readCoordinate(payload)
	if err != nil || got.Shard != id || got.Client != client {
		t.Fatalf("%+v, %v", got, err)
	}
	if c := got.Request.(*kmsg.OffsetCommitRequest); c.Group != "g" || len(c.Topics) != 1 || c.Topics[0].Partitions[1].Offset != 2 {
		t.Errorf("%+v", c)
	}
	for n := range payload {
		if _, err := readCoordinate(payload[:n]); err == nil {
			t.Errorf("%d of %d bytes were understood", n, len(payload))
		}
	}
	if _, err := putCoordinate(CoordinateRequest{id, coordinator.Client{ID: strings.Repeat("x", 1<<16)}, commitOf("g", "a")}); err == nil {
		t.Error("a client's id of 64 KiB was taken")
	}
	// Another version, another key: refused rather than misread.
	for _, at := range []int{20, 22} {
		other := slices.Clone(payload)
		other[at+1]++
		if _, err := readCoordinate(other); err == nil {
			t.Errorf("changed at %d, it was understood", at)
		}
	}
}

// Any bytes may come from another node.
func FuzzDecodeCoordinate(f *testing.F) {
	for _, req := range []kmsg.Request{
		commitOf("g", "a", 1, 2),
		groupRequest(func(req *kmsg.JoinGroupRequest) { req.Group = "g" }),
		groupRequest(func(req *kmsg.ListGroupsRequest) { req.StatesFilter = []string{"Stable"} }),
	} {
		payload, err := putCoordinate(CoordinateRequest{fsm.PartitionID{Topic: fsm.GroupShardsID, Partition: 1}, coordinator.Client{ID: "c", Host: "/h"}, req})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		q, err := readCoordinate(payload)
		if err != nil {
			return
		}
		if q.Shard.Topic != fsm.GroupShardsID {
			t.Fatal("no shard")
		}
		if _, err := putCoordinate(q); err != nil {
			t.Fatal(err)
		}
	})
}
