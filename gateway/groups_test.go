package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// eachVersion runs a test for every served version of an API.
func eachVersion(t *testing.T, key kmsg.Key, run func(t *testing.T, version int16)) {
	api, ok := kafkaproto.Lookup(int16(key))
	if !ok {
		t.Fatalf("%s is not served", key.Name())
	}
	for v := api.Min; v <= api.Max; v++ {
		t.Run(fmt.Sprint(key.Name(), " v", v), func(t *testing.T) { run(t, v) })
	}
}

// TestOffsetsInEveryVersion: what is committed in one version is fetched in any.
func TestOffsetsInEveryVersion(t *testing.T) {
	f := newFake(t, "events:3")
	events, _ := f.Topics().Lookup("events")
	id := [16]byte(events.ID)
	g := serve(t, f, nil)
	eachVersion(t, kmsg.OffsetCommit, func(t *testing.T, v int16) {
		c := g.dial()
		group := fmt.Sprint("group-", v)
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group = v, group
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic, topic.TopicID = "events", id
		for _, p := range []int32{0, 2, 3, -1} {
			part := kmsg.NewOffsetCommitRequestTopicPartition()
			part.Partition, part.Offset, part.Metadata = p, 100+int64(p), kmsg.StringPtr("note")
			topic.Partitions = append(topic.Partitions, part)
		}
		missing := kmsg.NewOffsetCommitRequestTopic()
		missing.Topic, missing.TopicID = "missing", [16]byte{9}
		missing.Partitions = append(missing.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		req.Topics = append(req.Topics, topic, missing)
		resp := c.ask(req).(*kmsg.OffsetCommitResponse)
		var codes []int16
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				codes = append(codes, p.ErrorCode)
			}
		}
		unknown := kerr.UnknownTopicOrPartition.Code
		want := []int16{0, 0, unknown, unknown, unknown}
		if v >= 10 {
			want[4] = kerr.UnknownTopicID.Code
		}
		if !slices.Equal(codes, want) {
			t.Fatalf("codes %v, want %v", codes, want)
		}
		eachVersion(t, kmsg.OffsetFetch, func(t *testing.T, v int16) { fetchEveryWay(t, c, v, group, id) })
	})
}

func fetchEveryWay(t *testing.T, c *client, v int16, group string, id [16]byte) {
	ask := func(group string, all bool) (out []string, code int16) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version, req.Group = v, group
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = group
		if !all {
			topic := kmsg.NewOffsetFetchRequestTopic()
			topic.Topic, topic.Partitions = "events", []int32{0, 1, 2}
			req.Topics = append(req.Topics, topic)
			named := kmsg.NewOffsetFetchRequestGroupTopic()
			named.Topic, named.TopicID, named.Partitions = "events", id, []int32{0, 1, 2}
			one.Topics = append(one.Topics, named)
		}
		req.Groups = append(req.Groups, one)
		resp := c.ask(req).(*kmsg.OffsetFetchResponse)
		if v < 8 {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					out = append(out, fmt.Sprint(t.Topic, p.Partition, " ", p.Offset, " ", p.ErrorCode))
				}
			}
			return out, resp.ErrorCode
		}
		for _, t := range resp.Groups[0].Topics {
			name := t.Topic
			if v >= 10 && t.TopicID == id {
				name = "events"
			}
			for _, p := range t.Partitions {
				out = append(out, fmt.Sprint(name, p.Partition, " ", p.Offset, " ", p.ErrorCode))
			}
		}
		return out, resp.Groups[0].ErrorCode
	}
	none := "-1 0"
	if v == 0 {
		none = "-1 3"
	}
	check := func(what string, got []string, code int16, want ...string) {
		t.Helper()
		slices.Sort(got)
		if code != 0 || !slices.Equal(got, want) {
			t.Errorf("%s: %q, code %d, want %q", what, got, code, want)
		}
	}
	got, code := ask(group, false)
	check("named", got, code, "events0 100 0", "events1 "+none, "events2 102 0")
	got, code = ask("never seen", false)
	check("never seen", got, code, "events0 "+none, "events1 "+none, "events2 "+none)
	if v >= 2 {
		got, code = ask(group, true)
		check("all", got, code, "events0 100 0", "events2 102 0")
	}
}

// TestAGroupInEveryVersion: one member joins, syncs, beats and leaves.
func TestAGroupInEveryVersion(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	eachVersion(t, kmsg.JoinGroup, func(t *testing.T, v int16) {
		c := g.dial()
		group := fmt.Sprint("group-", v)
		join := kmsg.NewPtrJoinGroupRequest()
		join.Version, join.Group, join.SessionTimeoutMillis, join.ProtocolType = v, group, 10_000, "consumer"
		if v >= 1 {
			join.RebalanceTimeoutMillis = 5000
		}
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", []byte("subscription")
		join.Protocols = append(join.Protocols, p)
		joined := c.ask(join).(*kmsg.JoinGroupResponse)
		if v >= 4 {
			if joined.ErrorCode != kerr.MemberIDRequired.Code || joined.MemberID == "" {
				t.Fatalf("%+v", joined)
			}
			join.MemberID = joined.MemberID
			joined = c.ask(join).(*kmsg.JoinGroupResponse)
		}
		if joined.ErrorCode != 0 || joined.Generation != 1 || joined.LeaderID != joined.MemberID || len(joined.Members) != 1 || string(joined.Members[0].ProtocolMetadata) != "subscription" {
			t.Fatalf("%+v", joined)
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Version, sync.Group, sync.Generation, sync.MemberID = min(v, 5), group, 1, joined.MemberID
		sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = joined.MemberID, []byte("assignment")
		sync.GroupAssignment = append(sync.GroupAssignment, a)
		if synced := c.ask(sync).(*kmsg.SyncGroupResponse); synced.ErrorCode != 0 || string(synced.MemberAssignment) != "assignment" {
			t.Fatalf("%+v", synced)
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Version, beat.Group, beat.Generation, beat.MemberID = min(v, 4), group, 1, joined.MemberID
		if code := c.ask(beat).(*kmsg.HeartbeatResponse).ErrorCode; code != 0 {
			t.Fatalf("heartbeat: %d", code)
		}
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Version, describe.Groups = min(v, 6), []string{group, "never seen"}
		groups := c.ask(describe).(*kmsg.DescribeGroupsResponse).Groups
		if len(groups) != 2 || groups[0].State != "Stable" || len(groups[0].Members) != 1 || groups[0].Members[0].ClientHost != "/127.0.0.1" || groups[1].State != "Dead" {
			t.Fatalf("%+v", groups)
		}
		remove := kmsg.NewPtrDeleteGroupsRequest()
		remove.Version, remove.Groups = min(v, 3), []string{group, "never seen"}
		if r := c.ask(remove).(*kmsg.DeleteGroupsResponse).Groups; r[0].ErrorCode != kerr.NonEmptyGroup.Code || r[1].ErrorCode != kerr.GroupIDNotFound.Code {
			t.Fatalf("%+v", r)
		}
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Version, leave.Group, leave.MemberID = min(v, 5), group, joined.MemberID
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = joined.MemberID
		leave.Members = append(leave.Members, m)
		if code := c.ask(leave).(*kmsg.LeaveGroupResponse).ErrorCode; code != 0 {
			t.Fatalf("leave: %d", code)
		}
		leave.MemberID, leave.Members[0].MemberID = "nobody", "nobody"
		left := c.ask(leave).(*kmsg.LeaveGroupResponse)
		if unknown := kerr.UnknownMemberID.Code; v < 3 && left.ErrorCode != unknown || v >= 3 && (left.ErrorCode != 0 || left.Members[0].ErrorCode != unknown) {
			t.Fatalf("who is not there leaves: %+v", left)
		}
		list := kmsg.NewPtrListGroupsRequest()
		list.Version = min(v, 5)
		if listed := c.ask(list).(*kmsg.ListGroupsResponse); listed.ErrorCode != 0 || !slices.ContainsFunc(listed.Groups, func(g kmsg.ListGroupsResponseGroup) bool { return g.Group == group }) {
			t.Fatalf("%+v", listed)
		}
	})
}

func TestTheCoordinatorIsTheOneBroker(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	eachVersion(t, kmsg.FindCoordinator, func(t *testing.T, v int16) {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.Version, req.CoordinatorKey, req.CoordinatorKeys = v, "g", []string{"g", "h"}
		resp := c.ask(req).(*kmsg.FindCoordinatorResponse)
		if v < 4 {
			if resp.ErrorCode != 0 || resp.NodeID != BrokerID || resp.Host != "127.0.0.1" {
				t.Errorf("%+v", resp)
			}
			return
		}
		if len(resp.Coordinators) != 2 || resp.Coordinators[1].Key != "h" || resp.Coordinators[1].NodeID != BrokerID || resp.Coordinators[1].ErrorCode != 0 {
			t.Errorf("%+v", resp)
		}
		req.CoordinatorType = 2
		if code := c.ask(req).(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode; code != kerr.InvalidRequest.Code {
			t.Errorf("a share group's: %d", code)
		}
	})
}

// TestNoCoordinator: every API says so where its version has a place for it.
func TestNoCoordinator(t *testing.T) {
	f := newFake(t, "events")
	f.coordinateErr = outcome.ErrNoLeader
	g := serve(t, f, nil)
	want := kerr.NotCoordinator.Code
	eachVersion(t, kmsg.OffsetFetch, func(t *testing.T, v int16) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version, req.Group = v, "g"
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic, topic.Partitions = "events", []int32{0}
		req.Topics = append(req.Topics, topic)
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = "g"
		req.Groups = append(req.Groups, one)
		resp := g.dial().ask(req).(*kmsg.OffsetFetchResponse)
		switch {
		case v < 2 && resp.Topics[0].Partitions[0].ErrorCode == want:
		case v >= 2 && v < 8 && resp.ErrorCode == want:
		case v >= 8 && resp.Groups[0].ErrorCode == want:
		default:
			t.Errorf("%+v", resp)
		}
	})
	c := g.dial()
	for what, code := range map[string]int16{
		"join":      c.ask(kmsg.NewPtrJoinGroupRequest()).(*kmsg.JoinGroupResponse).ErrorCode,
		"sync":      c.ask(kmsg.NewPtrSyncGroupRequest()).(*kmsg.SyncGroupResponse).ErrorCode,
		"heartbeat": c.ask(kmsg.NewPtrHeartbeatRequest()).(*kmsg.HeartbeatResponse).ErrorCode,
		"leave":     c.ask(kmsg.NewPtrLeaveGroupRequest()).(*kmsg.LeaveGroupResponse).ErrorCode,
		"list":      c.ask(kmsg.NewPtrListGroupsRequest()).(*kmsg.ListGroupsResponse).ErrorCode,
		"delete":    c.ask(kmsg.NewPtrOffsetDeleteRequest()).(*kmsg.OffsetDeleteResponse).ErrorCode,
	} {
		if code != want {
			t.Errorf("%s: %d, want %d", what, code, want)
		}
	}
	f.coordinateErr = outcome.ErrUnknownFate
	if code := c.ask(kmsg.NewPtrHeartbeatRequest()).(*kmsg.HeartbeatResponse).ErrorCode; code != kerr.CoordinatorNotAvailable.Code {
		t.Errorf("with an unknown fate: %d", code)
	}
}

// TestTwoConsumersShareAndHandOver is a group of a real client: two members, one leaves, a third
// begins where the others have committed.
func TestTwoConsumersShareAndHandOver(t *testing.T) {
	f := newFake(t, "events:4")
	g := serve(t, f, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	open := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(g.addr), kgo.DefaultProduceTopic("events"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	producer := open()
	defer producer.Close()
	produce := func(from, to int) {
		var wg sync.WaitGroup
		for i := from; i < to; i++ {
			wg.Add(1)
			producer.Produce(ctx, &kgo.Record{Partition: int32(i % 4), Value: fmt.Append(nil, i)}, func(_ *kgo.Record, err error) {
				defer wg.Done()
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	// A member has partitions once it is returned: one that joins gets them after the others have
	// given them up, so that nobody reads what somebody else is about to lose.
	member := func() *kgo.Client {
		assigned := make(chan struct{}, 8)
		cl := open(kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("events"), kgo.HeartbeatInterval(200*time.Millisecond), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
				if len(partitions["events"]) > 0 {
					assigned <- struct{}{}
				}
			}))
		select {
		case <-assigned:
		case <-ctx.Done():
			t.Fatal("a member got no partition")
		}
		return cl
	}
	seen := map[string]int{}
	read := func(total int, members ...*kgo.Client) {
		t.Helper()
		for len(seen) < total {
			for _, m := range members {
				poll, end := context.WithTimeout(ctx, 300*time.Millisecond)
				fetches := m.PollFetches(poll)
				end()
				fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
			}
			if ctx.Err() != nil {
				t.Fatalf("%d of %d records came", len(seen), total)
			}
		}
		for _, m := range members {
			if err := m.CommitUncommittedOffsets(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	produce(0, 40)
	a := member()
	read(40, a)
	b := member()
	defer b.Close()
	produce(40, 80)
	read(80, a, b)
	a.Close()
	clear(seen)
	produce(80, 120)
	read(40, b)
	for i := range 120 {
		if times := seen[fmt.Sprint(i)]; i < 80 && times > 0 || i >= 80 && times != 1 {
			t.Errorf("%d came %d times after the commit", i, times)
		}
	}
}

// TestRequestsOfAConnectionAboutAGroupAreInLine: a client may send the next commit before the last
// is answered, as Java's commitAsync does. The last one counts, and what is read behind them is
// that.
func TestRequestsOfAConnectionAboutAGroupAreInLine(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	c := g.dial()
	const commits = 50
	var sent []byte
	for i := range commits {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group = 7, "readers"
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "events"
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Offset = int64(i + 1)
		topic.Partitions = append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		sent = append(sent, encode(int32(i), req)...)
	}
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Group = 5, "readers"
	asked := kmsg.NewOffsetFetchRequestTopic()
	asked.Topic, asked.Partitions = "events", []int32{0}
	fetch.Topics = append(fetch.Topics, asked)
	sent = append(sent, encode(commits, fetch)...)
	c.send(sent)
	for i := range commits {
		resp := kmsg.NewPtrOffsetCommitResponse()
		resp.Version = 7
		c.want(int32(i), resp)
		if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
			t.Fatalf("commit %d: code %d", i+1, code)
		}
	}
	resp := kmsg.NewPtrOffsetFetchResponse()
	resp.Version = 5
	c.want(commits, resp)
	if got := resp.Topics[0].Partitions[0].Offset; got != commits {
		t.Errorf("offset %d is committed, the last commit was %d", got, commits)
	}
	// A request that names a group twice does not wait for itself.
	twice := kmsg.NewPtrDescribeGroupsRequest()
	twice.Groups = []string{"readers", "readers"}
	if resp := c.ask(twice).(*kmsg.DescribeGroupsResponse); len(resp.Groups) != 2 {
		t.Errorf("%+v", resp)
	}
}

// behind is a node whose catalog does not have the topics yet that the coordinators' nodes know.
type behind struct{ *fakeCluster }

func (behind) Topics() *fsm.Topics { return fsm.NewCatalog().View() }

// TestOffsetsOfATopicThatIsNotKnownHereYet: where topics have ids, an offset without one would read
// as none.
func TestOffsetsOfATopicThatIsNotKnownHereYet(t *testing.T) {
	f := newFake(t, "events")
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group = 7, "readers"
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = "events"
	topic.Partitions = append(topic.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
	commit.Topics = append(commit.Topics, topic)
	serve(t, f, nil).dial().ask(commit)
	c := serve(t, behind{f}, nil).dial()
	for version, want := range map[int16]int16{9: 0, 10: kerr.NotCoordinator.Code} {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version = version
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group = "readers"
		req.Groups = append(req.Groups, group)
		got := c.ask(req).(*kmsg.OffsetFetchResponse).Groups[0]
		if got.Group != "readers" || got.ErrorCode != want || want == 0 && len(got.Topics) != 1 || want != 0 && len(got.Topics) != 0 {
			t.Errorf("v%d: %+v, want code %d", version, got, want)
		}
	}
}
