package gateway

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/acl"
)

// What a client makes up is no label of a metric, and so takes no memory.
func TestMechanismsThatAreMadeUpAreNoLabels(t *testing.T) {
	s := serveSecured(t, nil)
	for i := range 3 {
		c := s.dial()
		handshake(c, 1, login.Plain)
		handshake(c, 1, fmt.Sprint("made-up-", i)) // out of its turn
		c.closed()
		c = s.dial()
		handshake(c, 1, fmt.Sprint("made-up-", i))
		c.closed()
	}
	families, err := s.cfg.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if text := m.String(); strings.Contains(text, "made-up") {
				t.Errorf("%s: %s", f.GetName(), text)
			}
		}
	}
}

// A token for some topics tells of no groups, whether rights are judged or not.
func TestATokenListsNoGroupsBeyondItsScope(t *testing.T) {
	for _, authorize := range []bool{false, true} {
		f := newFake(t, "events")
		g := judged(t, f, func(cfg *Config) { cfg.Access.Authorize = authorize })
		if authorize {
			f.give(t, allow(acl.Cluster, acl.ClusterName, acl.Describe), allow(acl.Group, "theirs", acl.Read), allow(acl.Topic, "events", acl.Read))
		}
		c := g.dial()
		for _, group := range []string{"theirs", "mine"} {
			g.as(func(listen.Client) security.Identity { return security.Identity{Local: true} })
			commit := kmsg.NewPtrOffsetCommitRequest()
			commit.Version, commit.Group, commit.Generation = 2, group, -1
			commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "events", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
			if code := c.ask(commit).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
				t.Fatalf("code %d", code)
			}
		}
		g.as(func(listen.Client) security.Identity {
			return security.Identity{Principal: security.User("alice"), Scope: security.Scope{{Resource: security.GroupResource, Name: "theirs"}}}
		})
		var names []string
		for _, one := range c.ask(kmsg.NewPtrListGroupsRequest()).(*kmsg.ListGroupsResponse).Groups {
			names = append(names, one.Group)
		}
		if len(names) != 1 || names[0] != "theirs" {
			t.Errorf("authorize %v: %q", authorize, names)
		}
	}
}

// A member that waits for others is told at once when its right to the group goes.
func TestAWaitingMemberIsJudgedAnew(t *testing.T) {
	f := newFake(t, "events")
	g := judged(t, f, nil)
	read := allow(acl.Group, "g", acl.Read)
	f.give(t, read)
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.ProtocolType = 2, "g", "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 60_000, 60_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	first := g.dial()
	if code := first.ask(join).(*kmsg.JoinGroupResponse).ErrorCode; code != 0 {
		t.Fatalf("code %d", code)
	}
	second := g.dial() // waits for the first to join again
	answered := make(chan int16, 1)
	go func() { answered <- second.ask(join).(*kmsg.JoinGroupResponse).ErrorCode }()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{"g"}
	for state := ""; state != "PreparingRebalance"; {
		state = first.ask(describe).(*kmsg.DescribeGroupsResponse).Groups[0].State
	}
	f.give(t)
	select {
	case code := <-answered:
		if code != group30 {
			t.Errorf("code %d", code)
		}
	case <-time.After(patience): // of a wait of a minute
		t.Fatal("it waits on")
	}
}

// A session whose user is no more ends although its client takes no answers: what it had asked for
// before is not for it to read later.
func TestASessionEndsThatTakesNoAnswers(t *testing.T) {
	s := serveSecured(t, nil)
	f := s.cfg.Cluster.(*fakeCluster)
	for range 50 {
		if _, err := f.doAppend(f.id("events", 0), asBatches(recordBatch(strings.Repeat("a", 1<<20)))); err != nil {
			t.Fatal(err)
		}
	}
	c := s.dial()
	logIn(t, c)
	for i := range 20 {
		c.send(encode(int32(i), fetchAt(11, f, 0, 50<<20, "events")))
	}
	first := make([]byte, 1<<10) // the first answer is under way
	if _, err := c.Read(first); err != nil {
		t.Fatal(err)
	}
	s.users.drop("alice")
	ended := func() bool { return strings.Contains(s.metric(t, "trimaran_sessions_ended_total"), " 1") }
	for began := time.Now(); !ended(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("the session goes on")
		}
	}
	time.Sleep(endsWithin + 2*time.Second) // a timer may be late, and nothing tells of it
	_ = c.SetReadDeadline(time.Now().Add(patience))
	read := 0
	for buffer := make([]byte, 1<<20); ; {
		n, err := c.Read(buffer)
		if read += n; err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the connection is open")
			}
			break
		}
	}
	if read > 40<<20 { // what was in buffers on the way
		t.Errorf("%d bytes were read afterwards", read)
	}
	if got := s.metric(t, "trimaran_sessions_ended_total"); !strings.Contains(got, " 1") {
		t.Errorf("it ended more than once: %s", got)
	}
}

// metric gives the line of a metric that has no labels.
func (s *secured) metric(t *testing.T, name string) string {
	_, body := s.get(t, "/metrics", nil)
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, name+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// A token that a user has issued ends with the user and with the password.
func TestTokensEndWithTheirUser(t *testing.T) {
	s := serveSecured(t, nil)
	for name, end := range map[string]func(){
		"another password": func() { s.users.set(t, "alice", "another") },
		"a deleted user":   func() { s.users.drop("alice") },
	} {
		s.users.set(t, "alice", hardPassword)
		c := s.dial()
		logIn(t, c)
		a := askToken(c, TokenRequest{Kind: TokenKind, LifetimeMs: 60_000, Scope: widest})
		if said := s.audit.String(); !strings.Contains(said, a.ID) || strings.Contains(said, a.Token) {
			t.Errorf("%s: the audit log does not tell of the token's id, or tells the token: %s", name, said)
		}
		try := func() (*client, int16) {
			c := s.dial()
			handshake(c, 1, login.OAuthBearer)
			if in := authenticate(c, "n,,\x01auth=Bearer "+a.Token+"\x01\x01"); len(in.SASLAuthBytes) > 0 || in.ErrorCode != 0 {
				return c, 58
			}
			return c, 0
		}
		running, code := try()
		if code != 0 {
			t.Fatalf("%s: a token that is right: %d", name, code)
		}
		end()
		running.closed()
		if _, code := try(); code == 0 {
			t.Errorf("%s: the token is taken", name)
		}
	}
}

// A node that has just started does not know who may log in: it waits, and nobody is told that a
// password is wrong.
func TestANodeThatDoesNotKnowTheUsersWaits(t *testing.T) {
	s := serveSecured(t, nil)
	f := s.cfg.Cluster.(*fakeCluster)
	s.users.drop("alice")
	f.catalogUnknown.Store(true)
	c := s.dial()
	handshake(c, 1, login.Plain)
	answered := make(chan int16, 1)
	go func() { answered <- authenticate(c, plainMessage).ErrorCode }()
	select {
	case code := <-answered:
		t.Errorf("answered with %d before the users were known", code)
	case <-time.After(5 * catalogTick):
	}
	s.users.set(t, "alice", hardPassword)
	f.catalogUnknown.Store(false)
	if code := <-answered; code != 0 {
		t.Errorf("code %d", code)
	}
}

// Many guesses at once are no more than many one by one.
func TestGuessesAtOnceAreLimited(t *testing.T) {
	s := serveSecured(t, nil)
	var all sync.WaitGroup
	for i := range 100 {
		c := s.dial()
		handshake(c, 1, login.Plain)
		all.Go(func() { authenticate(c, fmt.Sprint("\x00alice\x00guess", i)) })
	}
	all.Wait()
	_, body := s.get(t, "/metrics", nil)
	failed := -1
	for line := range strings.Lines(body) {
		_, _ = fmt.Sscanf(line, `trimaran_logins_total{mechanism="PLAIN",result="failed"} %d`, &failed)
	}
	if failed < 10 || failed > 10+16 { // as many as are checked at a time may be under way
		t.Errorf("%d of 100 guesses were checked", failed)
	}
}

// A shim that is believed where its clients come from is not believed that nobody listens on the
// way from it.
func TestATrustedShimInClear(t *testing.T) {
	s := serveSecured(t, func(cfg *Config) {
		cfg.Strangers.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	l := &fromElsewhere{conns: make(chan net.Conn), done: make(chan struct{})}
	go func() { _ = s.Serve(l) }()
	there, here := net.Pipe()
	l.conns <- here
	go func() {
		fmt.Fprintf(there, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s: 198.51.100.9:1000 %s\r\nAuthorization: Basic %s\r\n\r\n",
			shim.ClientHeader, shim.ClientTLS, base64.StdEncoding.EncodeToString([]byte("alice:"+hardPassword)))
	}()
	status := make([]byte, 12)
	if _, err := there.Read(status); err != nil || string(status) != "HTTP/1.1 401" {
		t.Errorf("%q, %v", status, err)
	}
	there.Close()
	if log := s.audit.String(); !strings.Contains(log, "in clear") || !strings.Contains(log, "198.51.100.9") {
		t.Errorf("the audit log: %s", log)
	}
}

// fromElsewhere gives connections of another machine.
type fromElsewhere struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1000} }
func (elsewhere) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 9092} }

func (l *fromElsewhere) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return elsewhere{c}, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *fromElsewhere) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *fromElsewhere) Addr() net.Addr { return &net.TCPAddr{} }

// Where clients have to log in, metrics tell who has not, or has no right to it, of no topic.
func TestMetricsNameNoTopicsToStrangers(t *testing.T) {
	s := serveSecured(t, func(cfg *Config) { cfg.Access.Authorize = true })
	f := s.cfg.Cluster.(*fakeCluster)
	f.give(t, allow(acl.Topic, "events", acl.Write))
	c := s.dial()
	logIn(t, c)
	if code := c.ask(produceAt(9, f, "events", 0, recordBatch("a"))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("code %d", code)
	}
	alice := func(r *http.Request) { r.SetBasicAuth("alice", hardPassword) }
	names := func(who func(*http.Request)) (status int, topics bool) {
		status, body := s.get(t, "/metrics", who)
		if status == 200 && !strings.Contains(body, "trimaran_login_required 1") {
			t.Errorf("without what names no topic: %s", body)
		}
		return status, strings.Contains(body, "events")
	}
	if status, topics := names(nil); status != 200 || topics {
		t.Errorf("a stranger: %d, topics: %v", status, topics)
	}
	if status, topics := names(alice); status != 200 || topics {
		t.Errorf("who may not describe the cluster: %d, topics: %v", status, topics)
	}
	if status, _ := names(func(r *http.Request) { r.SetBasicAuth("alice", "wrong") }); status != 401 {
		t.Errorf("a wrong password: %d", status)
	}
	f.give(t, allow(acl.Cluster, acl.ClusterName, acl.Describe))
	if status, topics := names(alice); status != 200 || !topics {
		t.Errorf("who may: %d, topics: %v", status, topics)
	}
}
