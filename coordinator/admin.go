package coordinator

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm/groups"
)

// classic is the type of all groups here (KIP-848 has another one).
const classic = "classic"

func (c *Coordinator) describeGroups(client Client, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, id := range req.Groups {
		resp.Groups = append(resp.Groups, c.describe(id, client.Version))
	}
	return resp
}

func (c *Coordinator) describe(id string, version int16) kmsg.DescribeGroupsResponseGroup {
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group = id
	g := c.lockGroup(id, false)
	if g == nil {
		d.State = "Dead"
		if version >= 6 { // KIP-1043
			message := "Group " + cut(id, 100) + " not found."
			d.ErrorCode, d.ErrorMessage = kerr.GroupIDNotFound.Code, &message
		}
		return d
	}
	defer c.unlockGroup(g)
	d.State, d.ProtocolType = g.state.String(), g.protocolType
	if g.state == stable {
		d.Protocol = g.protocol
	}
	for _, m := range g.members {
		dm := kmsg.NewDescribeGroupsResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.ClientID, dm.ClientHost = m.id, m.instance, m.clientID, m.clientHost
		dm.ProtocolMetadata, dm.MemberAssignment = []byte{}, append([]byte{}, m.assignment...)
		if g.state == stable {
			dm.ProtocolMetadata = m.metadata(g.protocol)
		}
		d.Members = append(d.Members, dm)
	}
	return d
}

// listGroups answers ListGroups for the shard, sorted by group id.
func (c *Coordinator) listGroups(req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	if len(req.TypesFilter) > 0 && !slices.ContainsFunc(req.TypesFilter, func(t string) bool { return strings.EqualFold(t, classic) }) {
		return resp
	}
	for _, id := range c.all() {
		g := c.lockGroup(id, false)
		if g == nil {
			continue
		}
		l := kmsg.NewListGroupsResponseGroup()
		l.Group, l.ProtocolType, l.GroupState, l.GroupType = id, g.protocolType, g.state.String(), classic
		c.unlockGroup(g)
		if len(req.StatesFilter) == 0 || slices.ContainsFunc(req.StatesFilter, func(s string) bool {
			return strings.EqualFold(strings.TrimSpace(s), l.GroupState)
		}) {
			resp.Groups = append(resp.Groups, l)
		}
	}
	return resp
}

func (c *Coordinator) deleteGroups(ctx context.Context, req *kmsg.DeleteGroupsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, id := range req.Groups {
		d := kmsg.NewDeleteGroupsResponseGroup()
		d.Group = id
		var err error
		if d.ErrorCode, err = c.deleteGroup(ctx, id); err != nil {
			return nil, err
		}
		resp.Groups = append(resp.Groups, d)
	}
	return resp, nil
}

func (c *Coordinator) deleteGroup(ctx context.Context, id string) (int16, error) {
	g := c.lockGroup(id, false)
	if g == nil {
		return kerr.GroupIDNotFound.Code, nil
	}
	if g.state != empty {
		c.unlockGroup(g)
		return kerr.NonEmptyGroup.Code, nil
	}
	for member := range g.pending {
		g.forgetPending(member) // they find out when they join
	}
	g.unsaved = false
	var cmd groups.Changes
	cmd.DeleteGroup(g.id)
	w := g.write(cmd, func(err error) {
		if err == nil && g.state == empty {
			// What is left of it in memory must not outlive it.
			g.generation, g.protocolType, g.subscribed = 0, "", nil
		}
	})
	c.unlockGroup(g)
	if err := w.wait(ctx); err != nil {
		return 0, err
	}
	return c.codeOf(w.err), nil
}

// offsetDelete answers OffsetDelete (KIP-496).
func (c *Coordinator) offsetDelete(ctx context.Context, req *kmsg.OffsetDeleteRequest) (kmsg.Response, error) {
	if code := checkGroupID(req.Group); code != 0 {
		return refuse(req, code), nil
	}
	known := make([]bool, len(req.Topics))
	for i, topic := range req.Topics {
		_, known[i] = c.topicID(topic.Topic)
	}
	g := c.lockGroup(req.Group, false)
	if g == nil {
		return refuse(req, kerr.GroupIDNotFound.Code), nil
	}
	if g.state != empty && g.protocolType != consumerProtocol {
		c.unlockGroup(g)
		return refuse(req, kerr.NonEmptyGroup.Code), nil
	}
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	var cmd groups.Changes
	for i, topic := range req.Topics {
		t := kmsg.NewOffsetDeleteResponseTopic()
		t.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			p := kmsg.NewOffsetDeleteResponseTopicPartition()
			p.Partition = partition.Partition
			switch {
			case !known[i]:
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case g.subscribes(topic.Topic):
				p.ErrorCode = kerr.GroupSubscribedToTopic.Code
			default:
				cmd.DeleteOffset(g.id, topic.Topic, partition.Partition, -1)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	var w *write
	if cmd.Len() > 0 {
		w = g.write(cmd, nil)
	}
	c.unlockGroup(g)
	if w == nil {
		return resp, nil
	}
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	if code := c.codeOf(w.err); code != 0 {
		return refuse(req, code), nil
	}
	return resp, nil
}
