package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
	"github.com/trimaran-io/trimaran/security/token"
)

// Keys overlap as long as a token that they signed can be good, and not longer.
func TestKeysAreRotatedWithAnOverlap(t *testing.T) {
	began := time.UnixMilli(1_800_000_000_000)
	var keys []fsm.TokenKey
	rotate := func(after time.Duration, atOnce bool) []string {
		t.Helper()
		now := began.Add(after)
		alter, err := alterTokens(TokenRequest{Kind: RotateKeysKind, AtOnce: atOnce}, keys, now)
		if err != nil || len(alter.AddKeys) != 1 || alter.AddKeys[0].Created != now.UnixMilli() || bytes.Equal(alter.AddKeys[0].Seed, make([]byte, 32)) {
			t.Fatalf("%+v, %v", alter, err)
		}
		keys = slices.DeleteFunc(keys, func(k fsm.TokenKey) bool { return slices.Contains(alter.RemoveKeys, k.ID) })
		alter.AddKeys[0].ID = after.String()
		keys = append(keys, alter.AddKeys[0])
		var left []string
		for _, k := range keys {
			left = append(left, k.ID)
		}
		return left
	}
	for _, step := range []struct {
		after  time.Duration
		atOnce bool
		want   string
	}{
		{0, false, "0s"},
		{time.Hour, false, "0s 1h0m0s"},
		// The first has signed until the second came: what it signed then is good for a day.
		{25 * time.Hour, false, "0s 1h0m0s 25h0m0s"},
		{25*time.Hour + time.Minute, false, "1h0m0s 25h0m0s 25h1m0s"},
		{26 * time.Hour, true, "26h0m0s"},
	} {
		if got := strings.Join(rotate(step.after, step.atOnce), " "); got != step.want {
			t.Errorf("after %v: %s, want %s", step.after, got, step.want)
		}
	}
}

func TestWhatIsRevoked(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	id := token.NewID()
	alter, err := alterTokens(TokenRequest{Kind: RevokeKind, IDs: []string{id}}, nil, now)
	if err != nil || len(alter.Revoke) != 1 || alter.Revoke[0].Token != id || alter.Revoke[0].Until < now.Add(token.MaxLifetime).UnixMilli() {
		t.Errorf("%+v, %v", alter, err)
	}
	// Whoever issued one has a clock that may be ahead.
	alter, err = alterTokens(TokenRequest{Kind: RevokeKind, Principal: "User:a"}, nil, now)
	if err != nil || len(alter.Revoke) != 1 || alter.Revoke[0].Before < now.Add(token.Skew).UnixMilli() {
		t.Errorf("%+v, %v", alter, err)
	}
	for _, bad := range []TokenRequest{
		{}, {IDs: []string{"x"}}, {IDs: []string{strings.ToUpper(id)}}, {IDs: []string{id}, Principal: "User:a"}, {Principal: "a"},
		{IDs: slices.Repeat([]string{id}, mostIDs+1)},
	} {
		bad.Kind = RevokeKind
		if alter, err := alterTokens(bad, nil, now); err == nil {
			t.Errorf("%d ids, principal %q: %+v", len(bad.IDs), bad.Principal, alter)
		}
	}
}

// What is about all tokens is for who may alter the cluster, and to see it for who may describe it;
// no token is enough.
func TestWhoMayManageTokens(t *testing.T) {
	f := newFake(t, "events")
	g := judged(t, f, nil)
	c := g.dial()
	ask := func(asked TokenRequest) (code int16, answer TokenAnswer) {
		t.Helper()
		body, err := json.Marshal(asked)
		if err != nil {
			t.Fatal(err)
		}
		c.send(raw(append(head(TokenKey, 0), body...)...))
		frame, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		if code = int16(frame[8])<<8 | int16(frame[9]); code == 0 {
			err = json.Unmarshal(frame[14:], &answer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return code, answer
	}
	denied := kerr.ClusterAuthorizationFailed.Code
	all := []TokenRequest{{Kind: RevokeKind, Principal: "User:a"}, {Kind: RotateKeysKind}, {Kind: ListKind}, {Kind: ListKeysKind}}
	codes := func(want ...int16) {
		t.Helper()
		for i, asked := range all {
			if code, _ := ask(asked); code != want[i] {
				t.Errorf("%s: code %d, want %d", asked.Kind, code, want[i])
			}
		}
	}
	f.give(t)
	codes(denied, denied, denied, denied)
	if s := f.Topics().Security(); len(s.TokenKeys())+len(s.Revoked()) > 0 {
		t.Error("what was denied was done")
	}
	f.give(t, allow(acl.Cluster, acl.ClusterName, acl.Describe))
	codes(denied, denied, 0, 0)
	f.give(t, allow(acl.Cluster, acl.ClusterName, acl.Alter))
	codes(0, 0, 0, 0)
	if _, a := ask(all[2]); len(a.Revoked) != 1 || a.Revoked[0].Principal != "User:a" {
		t.Errorf("%+v", a)
	}
	if _, a := ask(all[1]); len(a.Keys) != 2 || a.Keys[0].Signs || !a.Keys[1].Signs {
		t.Errorf("%+v", a)
	}
	if _, a := ask(TokenRequest{Kind: RotateKeysKind, AtOnce: true}); len(a.Keys) != 1 {
		t.Errorf("%+v", a)
	}
	if _, a := ask(TokenRequest{Kind: RevokeKind}); a.Error == "" {
		t.Error("nothing is revoked, and no error")
	}
	g.as(func(listen.Client) security.Identity {
		return security.Identity{Principal: security.User("alice"), Scope: security.Scope{{Resource: security.TopicResource, Prefix: true, Access: security.WriteAccess}}}
	})
	c = g.dial()
	codes(denied, denied, denied, denied)
}

// Authorized operations (KIP-430) of who has logged in by a token are what both the token and its
// principal may.
func TestAuthorizedOperationsOfAToken(t *testing.T) {
	f := newFake(t, "events", "others")
	g := judged(t, f, nil)
	f.give(t, allow(acl.Topic, "events", acl.All), allow(acl.Topic, "others", acl.All), allow(acl.Cluster, acl.ClusterName, acl.All), allow(acl.Group, "g", acl.All))
	bits := func(ops ...acl.Operation) (b int32) {
		for _, op := range ops {
			b |= 1 << op
		}
		return b
	}
	read, write := bits(acl.Read, acl.Describe), bits(acl.Write, acl.Describe)
	for name, test := range map[string]struct {
		scope         security.Scope
		topic, group  int32
		topicDenied   bool
		clusterIsSeen bool
	}{
		"no token":    {nil, 3576, 3400, false, true},
		"to read":     {security.Scope{{Resource: security.TopicResource, Name: "events", Access: security.ReadAccess}, {Resource: security.GroupResource, Name: "g"}}, read, bits(acl.Read, acl.Describe), false, false},
		"to write":    {security.Scope{{Resource: security.TopicResource, Name: "ev", Prefix: true, Access: security.WriteAccess}}, write, 0, false, false},
		"for another": {security.Scope{{Resource: security.TopicResource, Name: "others", Access: security.ReadAccess}}, 0, 0, true, false},
		"for a group": {security.Scope{{Resource: security.GroupResource, Prefix: true}}, 0, bits(acl.Read, acl.Describe), true, false},
	} {
		g.as(func(listen.Client) security.Identity {
			return security.Identity{Principal: security.User("alice"), Scope: test.scope}
		})
		c := g.dial()
		req := metadataOf("events")
		req.Version, req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = 8, true, true
		m := c.ask(req).(*kmsg.MetadataResponse)
		groups := kmsg.NewPtrDescribeGroupsRequest()
		groups.Version, groups.Groups, groups.IncludeAuthorizedOperations = 3, []string{"g"}, true
		group := c.ask(groups).(*kmsg.DescribeGroupsResponse).Groups[0]
		if denied := m.Topics[0].ErrorCode == topic29; denied != test.topicDenied || !denied && m.Topics[0].AuthorizedOperations != test.topic {
			t.Errorf("%s: the topic's %b, code %d", name, m.Topics[0].AuthorizedOperations, m.Topics[0].ErrorCode)
		}
		if group.ErrorCode == 0 && group.AuthorizedOperations != test.group || group.ErrorCode != 0 && test.group != 0 {
			t.Errorf("%s: the group's %b, code %d", name, group.AuthorizedOperations, group.ErrorCode)
		}
		if m.AuthorizedOperations != 0 != test.clusterIsSeen {
			t.Errorf("%s: the cluster's %b", name, m.AuthorizedOperations)
		}
	}
}
