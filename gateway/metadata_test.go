package gateway

import (
	"testing"

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
