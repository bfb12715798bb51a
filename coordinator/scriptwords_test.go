package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// request makes the request of a script's command.
func (s *script) request(d *datadriven.TestData, a *actor) kmsg.Request {
	group, member, generation := text(d, "g", "g"), text(d, "member", a.member), int32(number(d, "generation", int(a.generation)))
	var instance *string
	if i := text(d, "instance", ""); i != "" {
		instance = &i
	}
	switch d.Cmd {
	case "join":
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.MemberID, req.InstanceID, req.ProtocolType = group, member, instance, text(d, "type", "consumer")
		req.SessionTimeoutMillis = int32(duration(d, "session", 10*time.Second).Milliseconds())
		req.RebalanceTimeoutMillis = int32(duration(d, "rebalance", time.Minute).Milliseconds())
		for _, name := range list(d, "protocols", "range") {
			p := kmsg.NewJoinGroupRequestProtocol()
			p.Name, p.Metadata = name, subscription(list(d, "topics", "t1")...)
			req.Protocols = append(req.Protocols, p)
		}
		return req
	case "sync":
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
		if p := text(d, "protocol", ""); p != "" {
			req.Protocol = &p
		}
		for _, assigned := range list(d, "assign") {
			name, what, _ := strings.Cut(assigned, ":")
			g := kmsg.NewSyncGroupRequestGroupAssignment()
			g.MemberID, g.MemberAssignment = s.actor(name).member, []byte(what)
			req.GroupAssignment = append(req.GroupAssignment, g)
		}
		return req
	case "heartbeat":
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
		return req
	case "leave":
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group = group
		for _, name := range list(d, "members", text(d, "as", "")) {
			m := kmsg.NewLeaveGroupRequestMember()
			m.MemberID, m.InstanceID = s.actor(name).member, instance
			if d.HasArg("member") {
				m.MemberID = member
			}
			req.Members = append(req.Members, m)
		}
		return req
	case "commit":
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.MemberID, req.InstanceID, req.Generation = group, member, instance, generation
		s.positions(d, func(topic string, partition int32, offset string) {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = topic
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition = partition
			p.Offset, _ = strconv.ParseInt(offset, 10, 64)
			if metadata := text(d, "metadata", ""); metadata != "" {
				p.Metadata = &metadata
			}
			t.Partitions = append(t.Partitions, p)
			req.Topics = append(req.Topics, t)
		})
		return req
	case "fetch":
		req := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group, g.MemberEpoch = group, -1
		if d.Input != "" {
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		}
		s.positions(d, func(topic string, partition int32, _ string) {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic, t.Partitions = topic, []int32{partition}
			g.Topics = append(g.Topics, t)
		})
		req.Groups, req.RequireStable = append(req.Groups, g), d.HasArg("stable")
		return req
	case "pend":
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group, req.MemberID, req.InstanceID, req.Generation = "id", group, member, instance, generation
		req.ProducerID, req.ProducerEpoch = int64(number(d, "pid", 7)), int16(number(d, "epoch", 0))
		s.positions(d, func(topic string, partition int32, offset string) {
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			metadata := text(d, "metadata", "")
			t.Topic, p.Partition, p.Metadata, p.LeaderEpoch = topic, partition, &metadata, -1
			p.Offset, _ = strconv.ParseInt(offset, 10, 64)
			t.Partitions = append(t.Partitions, p)
			req.Topics = append(req.Topics, t)
		})
		return req
	case "describe":
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{group}
		return req
	case "list":
		req := kmsg.NewPtrListGroupsRequest()
		req.StatesFilter, req.TypesFilter = list(d, "states"), list(d, "types")
		return req
	case "delete":
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{group}
		return req
	case "delete-offsets":
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		s.positions(d, func(topic string, partition int32, _ string) {
			t := kmsg.NewOffsetDeleteRequestTopic()
			p := kmsg.NewOffsetDeleteRequestTopicPartition()
			t.Topic, p.Partition = topic, partition
			t.Partitions = append(t.Partitions, p)
			req.Topics = append(req.Topics, t)
		})
		return req
	}
	d.Fatalf(s.t, "no such command")
	return nil
}

// positions reads lines of topic/partition or topic/partition=offset.
func (s *script) positions(d *datadriven.TestData, f func(topic string, partition int32, offset string)) {
	for line := range strings.Lines(d.Input) {
		where, offset, _ := strings.Cut(strings.TrimSpace(line), "=")
		topic, partition, _ := strings.Cut(where, "/")
		n, err := strconv.Atoi(partition)
		if err != nil {
			d.Fatalf(s.t, "%s: %v", line, err)
		}
		f(topic, int32(n), offset)
	}
}

// learn remembers what the answer tells its member, and prints it.
func (a *actor) learn(resp kmsg.Response) string {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		if r.ErrorCode == 0 || r.ErrorCode == kerr.MemberIDRequired.Code {
			a.member = r.MemberID
		}
		if r.ErrorCode != 0 {
			return fmt.Sprintf("%s, member %q", code(r.ErrorCode), r.MemberID)
		}
		a.generation = r.Generation
		text := fmt.Sprintf("%s in generation %d of %s %s, leader %s", r.MemberID, r.Generation, *r.ProtocolType, *r.Protocol, r.LeaderID)
		if r.SkipAssignment {
			text += ", skips assignment"
		}
		for _, m := range r.Members {
			text += " [" + m.MemberID
			if m.InstanceID != nil {
				text += " " + *m.InstanceID
			}
			topics := make(map[string]bool)
			addTopics(topics, m.ProtocolMetadata)
			text += fmt.Sprintf(" %v]", slices.Sorted(maps.Keys(topics)))
		}
		return text
	case *kmsg.SyncGroupResponse:
		if r.ErrorCode != 0 {
			return code(r.ErrorCode)
		}
		return fmt.Sprintf("got %q of %s %s", r.MemberAssignment, *r.ProtocolType, *r.Protocol)
	case *kmsg.HeartbeatResponse:
		return code(r.ErrorCode)
	case *kmsg.LeaveGroupResponse:
		text := code(r.ErrorCode)
		for _, m := range r.Members {
			text += fmt.Sprintf(" [%q %s]", m.MemberID, code(m.ErrorCode))
		}
		return text
	case *kmsg.OffsetCommitResponse:
		text := ""
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				text += fmt.Sprintf("%s/%d %s ", t.Topic, p.Partition, code(p.ErrorCode))
			}
		}
		return strings.TrimSpace(text)
	case *kmsg.TxnOffsetCommitResponse:
		text := ""
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				text += fmt.Sprintf("%s/%d %s ", t.Topic, p.Partition, code(p.ErrorCode))
			}
		}
		return strings.TrimSpace(text)
	case *kmsg.OffsetFetchResponse:
		text := code(r.Groups[0].ErrorCode)
		for _, t := range r.Groups[0].Topics {
			for _, p := range t.Partitions {
				text += fmt.Sprintf(" [%s/%d = %d epoch %d %q %s]", t.Topic, p.Partition, p.Offset, p.LeaderEpoch, *p.Metadata, code(p.ErrorCode))
			}
		}
		return text
	case *kmsg.DescribeGroupsResponse:
		g := r.Groups[0]
		text := fmt.Sprintf("%s %s %q %q", code(g.ErrorCode), g.State, g.ProtocolType, g.Protocol)
		for _, m := range g.Members {
			text += fmt.Sprintf(" [%s %s%s %d bytes %q]", m.MemberID, m.ClientID, m.ClientHost, len(m.ProtocolMetadata), m.MemberAssignment)
		}
		return text
	case *kmsg.ListGroupsResponse:
		text := code(r.ErrorCode)
		for _, g := range r.Groups {
			text += fmt.Sprintf(" [%s %q %s %s]", g.Group, g.ProtocolType, g.GroupState, g.GroupType)
		}
		return text
	case *kmsg.DeleteGroupsResponse:
		return code(r.Groups[0].ErrorCode)
	case *kmsg.OffsetDeleteResponse:
		text := code(r.ErrorCode)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				text += fmt.Sprintf(" [%s/%d %s]", t.Topic, p.Partition, code(p.ErrorCode))
			}
		}
		return text
	}
	return fmt.Sprintf("%T", resp)
}

// code is Kafka's name of an error code.
func code(c int16) string {
	if c == 0 {
		return "ok"
	}
	return kerr.TypedErrorForCode(c).Message
}

// text is an argument of the command, or value.
func text(d *datadriven.TestData, key, value string) string {
	if arg, ok := d.Arg(key); ok && len(arg.Vals) == 1 {
		return arg.Vals[0]
	}
	return value
}

// list is an argument in parentheses, or one without, or the value.
func list(d *datadriven.TestData, key string, value ...string) []string {
	if arg, ok := d.Arg(key); ok {
		return arg.Vals
	}
	return value
}

func number(d *datadriven.TestData, key string, value int) int {
	n, err := strconv.Atoi(text(d, key, strconv.Itoa(value)))
	if err != nil {
		panic(err)
	}
	return n
}

// duration is an argument, or with key "" the first one.
func duration(d *datadriven.TestData, key string, value time.Duration) time.Duration {
	given := text(d, key, value.String())
	if key == "" {
		given = d.CmdArgs[0].Key
	}
	n, err := time.ParseDuration(given)
	if err != nil {
		panic(err)
	}
	return n
}
