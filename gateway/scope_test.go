package gateway

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// A token of everything that a scope can have.
var widest = security.Scope{
	{Resource: security.TopicResource, Prefix: true, Access: security.ReadAccess},
	{Resource: security.TopicResource, Prefix: true, Access: security.WriteAccess},
	{Resource: security.GroupResource, Prefix: true},
}

// inScope are the operations that some token may be used for.
func inScope(kind acl.ResourceType, op acl.Operation) bool {
	switch kind {
	case acl.Topic:
		return op == acl.Read || op == acl.Write || op == acl.Describe
	case acl.Group:
		return op == acl.Read || op == acl.Describe
	}
	return false
}

// TestTheMatrixOfScopes asks every API by tokens: of a principal with the right and of a super
// user, in and out of scope, and of one that has no right and whose token says it had. Whether
// rights are judged or not (below), nobody can do with a token what is not in it.
func TestTheMatrixOfScopes(t *testing.T) {
	elsewhere := security.Scope{{Resource: security.TopicResource, Name: "elsewhere", Access: security.ReadAccess}}
	cases := 0
	for _, row := range matrix() {
		for _, v := range []struct {
			name  string
			scope security.Scope
			given bool // the principal has the right
			super bool // it came by the Unix socket
		}{
			{name: "in scope", scope: widest, given: true},
			{name: "out of scope", scope: elsewhere, given: true},
			{name: "in scope, no right", scope: widest},
			{name: "super user out of scope", scope: elsewhere, super: true},
			{name: "super user in scope", scope: widest, super: true},
		} {
			if len(row.given) > 0 || row.quiet || row.api == kmsg.InitProducerID || row.api == StatusKey {
				continue // an answer to several rights
			}
			cases++
			name := apiName(row.api) + "/" + row.name + "/" + v.name
			f := newFake(t, "events-1:2", "public")
			g := judged(t, f, nil)
			g.as(func(listen.Client) security.Identity {
				who := security.User("alice")
				return security.Identity{Principal: who, Local: v.super, Scope: v.scope}
			})
			if v.given {
				f.give(t, allow(row.kind, row.resource, row.op))
			} else {
				f.give(t)
			}
			want := row.denied
			if (v.given || v.super) && strings.Contains(v.name, "in scope") && inScope(row.kind, row.op) {
				want = row.allowed
			}
			if got := row.ask(&matrixCase{f: f, client: g.dial(), g: g}); got != want {
				t.Errorf("%s: code %d, want %d", name, got, want)
			}
		}
	}
	if cases < 100 {
		t.Errorf("%d cases", cases)
	}
	t.Logf("%d cases", cases)
}

// A token's scope holds where rights are not judged at all.
func TestAScopeHoldsWithoutAuthorization(t *testing.T) {
	f := newFake(t, "events-1:2", "public")
	g := judged(t, f, func(cfg *Config) { cfg.Access = Access{} })
	scope := security.Scope{{Resource: security.TopicResource, Name: "public", Access: security.ReadAccess}}
	g.as(func(listen.Client) security.Identity {
		return security.Identity{Principal: security.User("alice"), Scope: scope}
	})
	c := g.dial()
	for topic, want := range map[string]int16{"public": 0, "events-1": topic29} {
		req := fetchAt(11, f, 0, 1<<20, topic)
		if got := c.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("fetch of %s: code %d, want %d", topic, got, want)
		}
	}
	if got := c.ask(kmsg.NewPtrDescribeLogDirsRequest()).(*kmsg.DescribeLogDirsResponse); len(got.Dirs) > 0 {
		t.Error("what the cluster keeps where is told to who has a token for a topic")
	}
}
