package gateway

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Version 1 names a controller, and tells "all topics" (null) from "none" (empty),
// which version 0 could not.
func TestMetadataVersion1(t *testing.T) {
	c := serve(t, newFake(t, "a", "b"), nil).dial()
	for name, test := range map[string]struct {
		version int16
		topics  []kmsg.MetadataRequestTopic
		want    int
	}{
		"v0 empty": {0, []kmsg.MetadataRequestTopic{}, 2},
		"v1 null":  {1, nil, 2},
		"v1 empty": {1, []kmsg.MetadataRequestTopic{}, 0},
	} {
		req := &kmsg.MetadataRequest{Version: test.version, Topics: test.topics}
		resp := c.do(req).(*kmsg.MetadataResponse)
		if len(resp.Topics) != test.want {
			t.Errorf("%s: %d topics, want %d", name, len(resp.Topics), test.want)
		}
		if test.version == 1 && resp.ControllerID != BrokerID {
			t.Errorf("%s: controller %d, want the one broker", name, resp.ControllerID)
		}
		if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != BrokerID {
			t.Errorf("%s: brokers %+v", name, resp.Brokers)
		}
	}
}

// From version 12 on an id counts, whatever the name beside it: Java's admin client
// sends an empty one, not null.
func TestMetadataByID(t *testing.T) {
	f := newFake(t, "a", "b")
	c := serve(t, f, nil).dial()
	unknown := [16]byte{15: 99}
	for version := int16(12); version <= 13; version++ {
		for _, name := range []*string{nil, kmsg.StringPtr("")} {
			req := &kmsg.MetadataRequest{Version: version, AllowAutoTopicCreation: true, Topics: []kmsg.MetadataRequestTopic{
				{Topic: name, TopicID: f.id("b", 0).Topic}, {Topic: name, TopicID: unknown},
			}}
			resp := c.ask(req).(*kmsg.MetadataResponse)
			if len(resp.Topics) != 2 {
				t.Fatalf("version %d: %+v", version, resp.Topics)
			}
			if got := resp.Topics[0]; got.ErrorCode != 0 || got.Topic == nil || *got.Topic != "b" || got.TopicID != f.id("b", 0).Topic || len(got.Partitions) == 0 {
				t.Errorf("version %d: %+v", version, got)
			}
			if got := resp.Topics[1]; got.ErrorCode != kerr.UnknownTopicID.Code || got.Topic != nil || got.TopicID != unknown {
				t.Errorf("version %d: %+v", version, got)
			}
		}
	}
}

// A node that has just started does not tell of fewer topics than there are.
func TestAllTopicsWaitForTheCatalog(t *testing.T) {
	f := newFake(t, "events")
	f.catalogUnknown.Store(true)
	s := serve(t, f, nil)
	c := s.dial()
	for _, req := range []kmsg.Request{kmsg.NewPtrListConfigResourcesRequest(), kmsg.NewPtrDescribeLogDirsRequest()} {
		req.SetVersion(req.MaxVersion())
		var code int16
		switch resp := s.dial().ask(req).(type) {
		case *kmsg.ListConfigResourcesResponse:
			code = resp.ErrorCode
		case *kmsg.DescribeLogDirsResponse:
			code = resp.ErrorCode
		}
		if err := kerr.ErrorForCode(code); !kerr.IsRetriable(err) {
			t.Errorf("%T is answered with %v", req, err)
		}
	}
	asked := make(chan *kmsg.MetadataResponse)
	go func() {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 9
		asked <- c.ask(req).(*kmsg.MetadataResponse)
	}()
	select {
	case resp := <-asked:
		t.Fatalf("answered before the topics were known: %+v", resp)
	case <-time.After(5 * catalogTick):
	}
	f.catalogUnknown.Store(false)
	if resp := <-asked; len(resp.Topics) != 1 {
		t.Errorf("%+v", resp)
	}
}
