package secured

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/trimaran-io/trimaran/test/harness"
)

// within is how long what was taken may still be had, anywhere, where the machine keeps nobody
// waiting.
const within = time.Second

// waiting is a request that waits for longer than it may once its client's right is gone.
type waiting struct {
	what string
	ends chan error
}

// fetches has somebody wait for records of the empty topic "quiet" for half a minute.
func fetches(t *testing.T, n *harness.Node, m sasl.Mechanism) waiting {
	t.Helper()
	cl := client(t, n.Addr(), m, kgo.MaxVersions(kversion.V2_0_0()))
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 30_000, 1, 1<<20, -1
	req.Topics = []kmsg.FetchRequestTopic{{Topic: "quiet", Partitions: []kmsg.FetchRequestTopicPartition{{PartitionMaxBytes: 1 << 20, CurrentLeaderEpoch: -1}}}}
	w := waiting{"Fetch at " + n.ID, make(chan error, 1)}
	go func() {
		answer, err := cl.SeedBrokers()[0].Request(context.WithoutCancel(t.Context()), req)
		if err == nil {
			err = kerr.ErrorForCode(answer.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode)
		}
		w.ends <- err
	}()
	return w
}

// joins has somebody wait in JoinGroup: another member of the group does not join again.
func joins(t *testing.T, n *harness.Node, m sasl.Mechanism) waiting {
	t.Helper()
	group := "team-" + n.ID + strings.ReplaceAll(t.Name(), "/", "-")
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = group, "consumer", 60_000, 60_000
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	other := client(t, "local:1", nil, kgo.Dialer(dialSocket(n)), kgo.MaxVersions(kversion.V2_0_0()))
	must(t, harness.Eventually(patience, func() bool {
		answer, err := other.SeedBrokers()[0].Request(t.Context(), join)
		return err == nil && answer.(*kmsg.JoinGroupResponse).ErrorCode == 0
	}))
	cl := client(t, n.Addr(), m, kgo.MaxVersions(kversion.V2_0_0()))
	w := waiting{"JoinGroup at " + n.ID, make(chan error, 1)}
	go func() {
		again := *join
		answer, err := cl.SeedBrokers()[0].Request(context.WithoutCancel(t.Context()), &again)
		if err == nil {
			err = kerr.ErrorForCode(answer.(*kmsg.JoinGroupResponse).ErrorCode)
		}
		w.ends <- err
	}()
	must(t, harness.Eventually(patience, func() bool {
		describe := kmsg.NewPtrDescribeGroupsRequest()
		describe.Groups = []string{group}
		answer, err := other.SeedBrokers()[0].Request(t.Context(), describe)
		return err == nil && answer.(*kmsg.DescribeGroupsResponse).Groups[0].State == "PreparingRebalance"
	}))
	return w
}

// TestWhatIsTakenIsGoneWithinASecond: a user, a password, an ACL and a token that are taken back
// can be used at no node a second later, whatever waits.
func TestWhatIsTakenIsGoneWithinASecond(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NoShim: true, NodeArgs: append([]string{"--group-initial-rebalance-delay-ms", "0"}, locked...)})
	operator(t, c, "topic", "create", "quiet", "--partitions", "1", "--replication-factor", "3")
	rights := []string{"--topic quiet --operation read", "--group-prefix team- --operation read"}
	names := []string{"alice", "bob", "carol", "dora", "eve", "frank"}
	for _, name := range names {
		user(t, c, name, rights...)
	}
	token := func(name string) sasl.Mechanism {
		out, err := trimaran("", "token", "create", "--read-prefix", "quiet", "--group-prefix", "team-", "--lifetime", "1h", "--user", name, "--brokers", c.Node(2).Addr())
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, word := range strings.Fields(out) {
			if strings.HasPrefix(word, "eyJ") {
				return oauth.Auth{Token: word}.AsMechanism()
			}
		}
		t.Fatalf("no token: %s", out)
		return nil
	}
	run := func(args ...string) { operator(t, c, args...) }
	slow := harness.WatchSlowness(t, c.Addrs()...)
	for what, try := range map[string]struct {
		as   sasl.Mechanism
		take func()
	}{
		"a user":                {as("alice"), func() { run("user", "delete", "alice") }},
		"a password":            {as("bob"), func() { run("user", "password", "bob") }},
		"rights":                {as("carol"), func() { run("acl", "remove", "--principal", "User:carol") }},
		"a token with its user": {token("dora"), func() { run("user", "delete", "dora") }},
		"tokens of a user":      {token("frank"), func() { run("token", "revoke", "--principal", "User:frank") }},
		"rights of a token":     {token("eve"), func() { run("acl", "remove", "--principal", "User:eve") }},
	} {
		t.Run(what, func(t *testing.T) {
			var all []waiting
			for _, n := range c.Nodes {
				all = append(all, joins(t, n, try.as))
			}
			for _, n := range c.Nodes {
				all = append(all, fetches(t, n, try.as))
			}
			time.Sleep(500 * time.Millisecond) // until they wait, which nothing tells
			for _, w := range all {
				select {
				case err := <-w.ends:
					t.Fatalf("%s does not wait: %v", w.what, err)
				default:
				}
			}
			try.take()
			taken := time.Now()
			slow.Forget()
			for _, w := range all {
				select {
				case err := <-w.ends:
					if took := time.Since(taken); took > within+slow.Longest() {
						t.Errorf("%s: after %v, on a machine that keeps everybody waiting for %v", w.what, took, slow.Longest())
					}
					if err == nil && strings.HasPrefix(w.what, "Join") {
						t.Errorf("%s: it is in the group", w.what)
					}
				case <-time.After(20 * time.Second): // they would for at least 30 s
					t.Errorf("%s waits on", w.what)
				}
			}
			time.Sleep(time.Until(taken.Add(within + slow.Longest())))
			for _, n := range c.Nodes {
				again := fetches(t, n, try.as)
				select {
				case err := <-again.ends:
					if err == nil {
						t.Errorf("%s is answered afterwards", again.what)
					}
				case <-time.After(20 * time.Second): // which is not the whole of its wait
					t.Errorf("%s is taken afterwards", again.what)
				}
			}
		})
	}
}
