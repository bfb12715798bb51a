package gateway

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// A fetch that waits is answered when its right goes, at once, and has no record that came since;
// one whose right stays goes on to wait, whatever else changes.
func TestAWaitingFetchIsJudgedAnew(t *testing.T) {
	f := newFake(t, "events", "others")
	read := allow(acl.Topic, "events", acl.Read)
	f.give(t, read)
	inBubble(t, func(cfg *Config) {
		cfg.Cluster, cfg.Access = f, Access{Authorize: true}
		cfg.identify = func(listen.Client) security.Identity {
			return security.Identity{Principal: security.User("alice"), Local: false}
		}
		f.changed = make(chan struct{}) // one of the bubble's
	}, func(t *testing.T, p *pipes, _ *Server) {
		reader := &client{p.dial(), t}
		defer reader.Close()
		req := fetchAt(11, f, 0, 1<<20, "events")
		req.MaxWaitMillis, req.MinBytes = 60_000, 1<<20
		reader.send(encode(1, req))
		began := time.Now()
		time.Sleep(time.Second)
		if _, err := f.AlterACLs(t.Context(), []acl.Binding{allow(acl.Topic, "others", acl.Read)}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		// Less than it waits for.
		if _, err := f.doAppend(f.id("events", 0), asBatches(recordBatch("secret"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		deny := read
		deny.Permission = acl.Deny
		if _, err := f.AlterACLs(t.Context(), []acl.Binding{deny}, nil); err != nil {
			t.Fatal(err)
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		reader.want(1, resp)
		out := resp.Topics[0].Partitions[0]
		if out.ErrorCode != topic29 || len(out.RecordBatches) > 0 || out.HighWatermark != -1 || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: code %d, %d bytes, high watermark %d", time.Since(began), out.ErrorCode, len(out.RecordBatches), out.HighWatermark)
		}
	})
}

// What is denied and what is not there are told apart by nobody who may not.
func TestDeniedAndAbsentLookAlike(t *testing.T) {
	f := newFake(t, "hidden-a")
	c := judged(t, f, nil).dial()
	f.give(t)
	for name, ask := range map[string]func(topic string) kmsg.Request{
		"produce": func(topic string) kmsg.Request {
			req := produceAt(9, f, "hidden-a", 0, recordBatch("a"))
			req.Topics[0].Topic = topic
			return req
		},
		"fetch": func(topic string) kmsg.Request {
			req := fetchAt(11, f, 0, 1, "hidden-a")
			req.Topics[0].Topic = topic
			return req
		},
		"metadata": func(topic string) kmsg.Request {
			req := metadataOf(topic)
			req.Version, req.AllowAutoTopicCreation, req.IncludeTopicAuthorizedOperations = 10, true, true
			return req
		},
		"create": func(topic string) kmsg.Request {
			req := kmsg.NewPtrCreateTopicsRequest()
			req.Version, req.TimeoutMillis = 7, 5000
			req.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}
			return req
		},
		"delete": func(topic string) kmsg.Request {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.Version, req.TimeoutMillis, req.Topics = 6, 5000, []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
			return req
		},
		"configurations": func(topic string) kmsg.Request { return describe(4, kmsg.ConfigResourceTypeTopic, topic) },
		"partitions": func(topic string) kmsg.Request {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}
			return req
		},
	} {
		there := string(c.ask(ask("hidden-a")).AppendTo(nil))
		absent := string(c.ask(ask("hidden-b")).AppendTo(nil))
		if there != strings.ReplaceAll(absent, "hidden-b", "hidden-a") {
			t.Errorf("%s: a topic that is there\n%x\none that is not\n%x", name, there, absent)
		}
	}
}

// Who may delete but not describe is not told the name of an id; who may describe is.
func TestDeletingByIDTellsNamesToWhoMayKnowThem(t *testing.T) {
	f := newFake(t, "hidden")
	c := judged(t, f, nil).dial()
	ask := func(id [16]byte) kmsg.DeleteTopicsResponseTopic {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Version, req.TimeoutMillis, req.Topics = 6, 5000, []kmsg.DeleteTopicsRequestTopic{{TopicID: id}}
		return c.ask(req).(*kmsg.DeleteTopicsResponse).Topics[0]
	}
	id := f.id("hidden", 0).Topic
	f.give(t)
	if out := ask(id); out.ErrorCode != topic29 || out.Topic != nil {
		t.Errorf("%+v", out)
	}
	f.give(t, allow(acl.Topic, "hidden", acl.Describe))
	if out := ask(id); out.ErrorCode != topic29 || out.Topic == nil || *out.Topic != "hidden" {
		t.Errorf("%+v", out)
	}
	if out := ask([16]byte{1}); out.ErrorCode != kerr.UnknownTopicID.Code {
		t.Errorf("an id of no topic: %+v", out)
	}
}

// Authorized operations are what the client may do.
func TestAuthorizedOperations(t *testing.T) {
	f := newFake(t, "events")
	c := judged(t, f, nil).dial()
	ask := func() (topic, cluster, group int32) {
		req := metadataOf("events")
		req.Version, req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = 8, true, true
		m := c.ask(req).(*kmsg.MetadataResponse)
		groups := kmsg.NewPtrDescribeGroupsRequest()
		groups.Version, groups.Groups, groups.IncludeAuthorizedOperations = 3, []string{"g"}, true
		return m.Topics[0].AuthorizedOperations, m.AuthorizedOperations, c.ask(groups).(*kmsg.DescribeGroupsResponse).Groups[0].AuthorizedOperations
	}
	bits := func(ops ...acl.Operation) (b int32) {
		for _, op := range ops {
			b |= 1 << op
		}
		return b
	}
	f.give(t, allow(acl.Topic, "events", acl.Write), allow(acl.Topic, "events", acl.AlterConfigs), allow(acl.Cluster, acl.ClusterName, acl.Alter), allow(acl.Group, "g", acl.Read))
	if topic, cluster, group := ask(); topic != bits(acl.Write, acl.Describe, acl.AlterConfigs, acl.DescribeConfigs) || cluster != bits(acl.Alter, acl.Describe) || group != bits(acl.Read, acl.Describe) {
		t.Errorf("topic %b, cluster %b, group %b", topic, cluster, group)
	}
	f.give(t, allow(acl.Topic, "events", acl.All), allow(acl.Cluster, acl.ClusterName, acl.Create), allow(acl.Group, "g", acl.All))
	if topic, cluster, group := ask(); topic != 3576 || cluster != 0 || group != 3400 {
		t.Errorf("topic %d, cluster %d, which it may not describe, group %d", topic, cluster, group)
	}
}

// Without an ACL for the resource everybody may, if that is set; with one it is as without.
func TestAllowEveryoneIfNoACL(t *testing.T) {
	f := newFake(t, "free", "held")
	f.give(t, acl.Binding{Type: acl.Topic, Pattern: acl.Literal, Name: "held", Principal: "User:bob", Host: "*", Operation: acl.Read, Permission: acl.Allow})
	c := judged(t, f, func(cfg *Config) { cfg.Access.AllowEveryoneIfNoACL = true }).dial()
	for topic, want := range map[string]int16{"free": 0, "held": topic29} {
		if got := c.ask(fetchAt(11, f, 0, 1, topic)).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; got != want {
			t.Errorf("%s: code %d, want %d", topic, got, want)
		}
	}
	if got := c.ask(kmsg.NewPtrInitProducerIDRequest()).(*kmsg.InitProducerIDResponse).ErrorCode; got != 0 {
		t.Errorf("a producer id: code %d", got)
	}
}

// A node that does not know the ACLs yet denies nothing for good.
func TestANodeThatDoesNotKnowTheACLsWaits(t *testing.T) {
	f := newFake(t, "events")
	f.give(t, allow(acl.Topic, "events", acl.Read))
	f.catalogUnknown.Store(true)
	c := judged(t, f, nil).dial()
	answered := make(chan int16, 1)
	go func() {
		answered <- c.ask(fetchAt(11, f, 0, 1, "events")).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode
	}()
	select {
	case code := <-answered:
		t.Errorf("answered with %d before the ACLs were known", code)
	case <-time.After(5 * catalogTick):
	}
	f.catalogUnknown.Store(false)
	if code := <-answered; code != 0 {
		t.Errorf("code %d", code)
	}
}

// A denial is a line with who, from where, what and why, not more than a few a second for one
// principal, and each is counted.
func TestDenialsAreLoggedAndCounted(t *testing.T) {
	f := newFake(t, "events")
	f.give(t)
	lines := &logBuffer{}
	g := judged(t, f, func(cfg *Config) { cfg.Audit = audit.New(slog.New(slog.NewJSONHandler(lines, nil))) })
	c := g.dial()
	for range 50 {
		req := fetchAt(11, f, 0, 1, "events")
		req.Topics[0].Topic = "ev\n" + strings.Repeat("x", 1000)
		c.ask(req)
	}
	text := lines.String()
	if n := strings.Count(text, "\n"); n < 1 || n > 30 {
		t.Errorf("%d lines", n)
	}
	first, _, _ := strings.Cut(text, "\n")
	for _, part := range []string{`"msg":"denied"`, `"who":"User:alice"`, `"from":"127.0.0.1"`, `"client_id":"test"`, `"what":"Fetch"`, `"operation":"read"`, `"resource_type":"topic"`, `"resource":"ev\nxxx`, `"why":"no ACL allows it"`} {
		if !strings.Contains(first, part) {
			t.Errorf("no %s in %s", part, first)
		}
	}
	if len(first) > 1000 {
		t.Errorf("a line of %d bytes", len(first))
	}
	families, err := g.cfg.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := ""
	for _, family := range families {
		if family.GetName() == "trimaran_authorization_denied_total" {
			counted = family.String()
		}
	}
	for _, part := range []string{`"Fetch"`, `"read"`, "value:50"} {
		if !strings.Contains(counted, part) {
			t.Errorf("no %s in %s", part, counted)
		}
	}
	// Another principal has lines of its own.
	g.as(func(listen.Client) security.Identity {
		return security.Identity{Principal: security.User("mallory"), Local: false}
	})
	c.ask(fetchAt(11, f, 0, 1, "events"))
	if !strings.Contains(lines.String(), "User:mallory") {
		t.Error("another principal's denial is not logged")
	}
}

func TestSuperUsers(t *testing.T) {
	got, err := ParseSuperUsers(" User:admin ;User:CN=a,O=b;; ")
	if err != nil || len(got) != 2 || got[0] != security.User("admin") || got[1] != security.User("CN=a,O=b") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseSuperUsers("User:a;bob"); err == nil {
		t.Error("a principal without a type is taken")
	}
	if got, err := ParseSuperUsers(" "); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

var errNone = errors.New("none")

// BenchmarkRights is what a request's rights cost: of a topic, among 10,000 ACLs.
func BenchmarkRights(b *testing.B) {
	f := newFake(b, "events")
	list := make([]acl.Binding, 0, acl.MaxBindings)
	for i := range acl.MaxBindings {
		one := allow(acl.Topic, "topic-"+strings.Repeat("x", i%50)+string(rune('a'+i%26)), acl.Read)
		one.Principal = "User:" + strings.Repeat("u", 1+i/100)
		list = append(list, one)
	}
	list[0] = allow(acl.Topic, "events", acl.Read)
	if _, err := f.AlterACLs(b.Context(), list, nil); err != nil {
		b.Fatal(err)
	}
	g := judged(b, f, nil)
	view := f.Topics()
	g.catalog = fixedCatalog{f, view}
	r := &request{conn: &connection{server: g.Server}, caller: caller{principal: alice, host: here}}
	r.header.Key = int16(kmsg.Fetch)
	b.ReportAllocs()
	for b.Loop() {
		if !r.mayTopic("events") {
			b.Fatal(errNone)
		}
	}
}

type fixedCatalog struct {
	*fakeCluster
	view *fsm.Topics
}

func (c fixedCatalog) Topics() *fsm.Topics { return c.view }
