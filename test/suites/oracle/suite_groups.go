package oracle

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// coordinated waits until the broker coordinates groups.
func (t *T) coordinated(group string) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey = group
	t.until("a coordinator of groups", func() bool {
		if t.ask(req).(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
			return false
		}
		offsets := kmsg.NewPtrOffsetFetchRequest()
		offsets.Version, offsets.Group = 2, group
		return t.ask(offsets).(*kmsg.OffsetFetchResponse).ErrorCode == 0
	})
}

// commit writes down what a commit for one partition answers.
func (t *T) commit(group, member string, generation int32, topic string, partition int32, offset int64, metadata string) {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 2, group, member, generation
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.Metadata = partition, offset, &metadata
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	p := t.ask(req).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0]
	t.Say("OffsetCommit %d: %s", offset, errorName(p.ErrorCode))
}

// joinOf is a JoinGroup as a consumer sends it.
func joinOf(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = 5, group, member, 10_000, 10_000, "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", []byte("x")
	req.Protocols = append(req.Protocols, p)
	return req
}

var groupCases = []Case{
	{"commits without members", func(t *T) {
		topic, group := t.Topic(), t.Name()
		t.coordinated(group)
		t.commit(group, "", -1, topic, 0, 5, "note")
		t.commit(group, "", -1, topic, 0, -1, "")
		t.commit(group, "", -1, topic, 0, -7, "")
		t.commit(group, "", -1, topic, 1, 5, "")
		t.commit(group, "", -1, "no-such-topic", 0, 5, "")
		t.commit(group, "", -1, topic, 0, 5, strings.Repeat("x", 4096))
		t.commit(group, "", -1, topic, 0, 5, strings.Repeat("x", 4097))
		t.commit(group, "", 0, topic, 0, 5, "")
		t.commit(group, "nobody", -1, topic, 0, 5, "")
		t.commit(group, "nobody", 3, topic, 0, 5, "")
		t.commit("", "", -1, topic, 0, 5, "")
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version, req.Group = 5, group
		t.Do(req, "Metadata")
	}},
	{"joins that are refused", func(t *T) {
		group := t.Name()
		t.coordinated(group)
		for _, e := range []func(*kmsg.JoinGroupRequest){
			func(r *kmsg.JoinGroupRequest) { r.Group = "" },
			func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 },
			func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 5999 },
			func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1800001 },
			func(r *kmsg.JoinGroupRequest) { r.MemberID = "nobody" },
			func(r *kmsg.JoinGroupRequest) { r.Protocols = nil },
			func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" },
		} {
			req := joinOf(group, "")
			e(req)
			t.Do(req, "MemberID", "LeaderID")
		}
	}},
	{"a group of one", func(t *T) {
		group := t.Name()
		t.Alias(group, "group")
		t.coordinated(group)
		first := t.Do(joinOf(group, ""), "MemberID").(*kmsg.JoinGroupResponse)
		t.Alias(first.MemberID, "member")
		joined := t.Do(joinOf(group, first.MemberID)).(*kmsg.JoinGroupResponse)
		other := joinOf(group, first.MemberID)
		other.Protocols[0].Name = "other"
		other.ProtocolType = "something"
		t.Do(other)
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Version, sync.Group, sync.MemberID, sync.Generation = 3, group, first.MemberID, joined.Generation+1
		t.Do(sync)
		sync.Generation = joined.Generation
		sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: first.MemberID, MemberAssignment: []byte("all")}}
		t.Do(sync)
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Version, beat.Group, beat.MemberID, beat.Generation = 3, group, first.MemberID, joined.Generation
		t.Do(beat)
		beat.Generation++
		t.Do(beat)
		beat.MemberID = "nobody"
		t.Do(beat)
		topic := t.Topic()
		t.commit(group, first.MemberID, joined.Generation, topic, 0, 5, "")
		t.commit(group, first.MemberID, joined.Generation+1, topic, 0, 5, "")
		t.commit(group, "", -1, topic, 0, 5, "")
		del := kmsg.NewPtrDeleteGroupsRequest()
		for _, g := range []string{group, t.Name(), ""} {
			del.Groups = []string{g}
			t.Do(del, "Group")
		}
		del.Groups = []string{group}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Version, leave.Group, leave.MemberID = 2, group, "nobody"
		t.Do(leave)
		leave.MemberID = first.MemberID
		t.Do(leave)
		t.Do(leave)
		t.Do(del, "Group")
	}},
	{"the topic of groups", func(t *T) {
		t.coordinated(t.Name())
		t.create(create(false, named("__consumer_offsets")))
		t.ProduceAcks(9, -1, "__consumer_offsets", 0, one()(t))
	}},
}
