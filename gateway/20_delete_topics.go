package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security/acl"
)

// DeleteTopics, versions 0 to 6.
//
// Kept: topics fail one by one. From version 6 on a topic is named or has its id
// given (KIP-516); both or neither is INVALID_REQUEST, and so is, for all of its
// places, a topic that stands twice in a request; the answer has both of what is
// deleted. The answer comes when the deletion
// is committed and known at this node, or with REQUEST_TIMED_OUT after the timeout,
// when it may have happened; a timeout of 0 or less only begins. Disk space is
// freed a little later.
//
// Left out: nothing disables deleting (delete.topic.enable).

func handleDeleteTopics(r *request) {
	r.background(func() {
		req := r.body.(*kmsg.DeleteTopicsRequest)
		resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
		s := r.conn.server
		asked := req.Topics
		if req.Version < 6 {
			asked = make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
			for i := range asked {
				asked[i].Topic = &req.TopicNames[i]
			}
		}
		type key struct {
			name string
			id   fsm.TopicID
		}
		keyOf := func(t *kmsg.DeleteTopicsRequestTopic) key {
			k := key{id: t.TopicID}
			if t.Topic != nil {
				k.name = *t.Topic
			}
			return k
		}
		named := map[key]int{}
		for i := range asked {
			named[keyOf(&asked[i])]++
		}
		topics := s.catalog.Topics() // as they are before
		errs := r.admin(req.TimeoutMillis, len(asked), func(ctx context.Context, i int) error {
			t := &asked[i]
			switch byID := t.TopicID != [16]byte{}; {
			case named[keyOf(t)] > 1:
				return fmt.Errorf("%w: the topic is named more than once", errInvalidRequest)
			case byID == (t.Topic != nil):
				return fmt.Errorf("%w: a topic has to have either its name or its id given", errInvalidRequest)
			case byID:
				if err := r.mayDeleteID(topics, t.TopicID); err != nil {
					return err
				}
				return s.changes.DeleteTopicByID(ctx, t.TopicID)
			}
			if err := r.mayDelete(topics, *t.Topic); err != nil {
				return err
			}
			return s.changes.DeleteTopic(ctx, *t.Topic)
		})
		for i := range asked {
			rt := kmsg.NewDeleteTopicsResponseTopic()
			rt.Topic, rt.TopicID = asked[i].Topic, asked[i].TopicID
			if errs[i] != nil {
				rt.ErrorCode = r.fail(errs[i])
				if rt.Topic == nil && rt.ErrorCode == kerr.UnknownTopicOrPartition.Code {
					rt.ErrorCode = r.fail(errUnknownTopicID)
				}
				rt.ErrorMessage = kmsg.StringPtr(message(errs[i]))
				if topic, ok := topics.ByID(rt.TopicID); ok && errors.Is(errs[i], errTopicDenied) && r.sees(acl.Describe, acl.Topic, topic.Name) {
					rt.Topic = &topic.Name
				}
			} else if rt.Topic == nil {
				if topic, ok := topics.ByID(rt.TopicID); ok {
					rt.Topic = &topic.Name
				}
			} else if topic, ok := topics.Lookup(*rt.Topic); ok {
				rt.TopicID = topic.ID
			}
			resp.Topics = append(resp.Topics, rt)
		}
		r.answer(resp)
	})
}

// mayDelete says whether the caller may delete the topic. That there is none is for who may
// describe it to hear, and this node's word: in a newer catalog there may be one.
func (r *request) mayDelete(topics *fsm.Topics, name string) error {
	if _, there := topics.Lookup(name); !there && !r.seesTopic(name) && r.sees(acl.Describe, acl.Topic, name) {
		return r.conn.server.unknownTopic()
	}
	if !r.mayTopic(name) {
		return errTopicDenied
	}
	return nil
}

// mayDeleteID is mayDelete of a topic by its id. Of one that is not known here nobody knows whose
// it is.
func (r *request) mayDeleteID(topics *fsm.Topics, id fsm.TopicID) error {
	topic, there := topics.ByID(id)
	switch {
	case there && !r.mayTopic(topic.Name):
		return errTopicDenied
	case !there && !r.caller.everything() && !r.mayInstead():
		return r.conn.server.unknownTopic()
	}
	return nil
}
