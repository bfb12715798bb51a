package secured

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/trimaran-io/trimaran/test/harness"
)

// attacker is somebody at the client port: a client of Kafka's, and the command line.
type attacker struct {
	cl    *kgo.Client
	admin *kadm.Client
	cli   func(args ...string) error
}

var errNothing = errors.New("there is nothing to see")

// first gives the error of a map's only answer.
func first[K comparable, V any](all map[K]V, err error, of func(V) error) error {
	for _, one := range all {
		return errors.Join(err, of(one))
	}
	return errors.Join(err, errNothing)
}

// attacks are what whoever reaches the client port of an open cluster can do to it or learn of it;
// nil means that it was done. The names are in the order in which an open cluster survives them.
var attacks = map[string]func(ctx context.Context, a attacker) error{
	"a: reads records": func(ctx context.Context, a attacker) error {
		a.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{"kept": {0: kgo.NewOffset().AtStart()}})
		defer a.cl.PurgeTopicsFromConsuming("kept")
		for ctx.Err() == nil {
			fetches := a.cl.PollFetches(ctx)
			for _, r := range fetches.Records() {
				if string(r.Value) == "top secret" {
					return nil
				}
			}
			if err := fetches.Err(); err != nil {
				return err
			}
		}
		return errNothing
	},
	"b: writes records": func(ctx context.Context, a attacker) error {
		return a.cl.ProduceSync(ctx, &kgo.Record{Topic: "kept", Value: []byte("forged")}).FirstErr()
	},
	"c: lists topics": func(ctx context.Context, a attacker) error {
		topics, err := a.admin.ListTopics(ctx)
		if err == nil && len(topics) == 0 {
			err = errNothing
		}
		return err
	},
	"d: lists groups": func(ctx context.Context, a attacker) error {
		groups, err := a.admin.ListGroups(ctx)
		if err == nil && len(groups) == 0 {
			err = errNothing
		}
		return err
	},
	"e: creates a topic": func(ctx context.Context, a attacker) error {
		made, err := a.admin.CreateTopics(ctx, 1, 1, nil, "made")
		return first(made, err, func(r kadm.CreateTopicResponse) error { return r.Err })
	},
	"f: creates a topic by naming it": func(ctx context.Context, a attacker) error {
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.AllowAutoTopicCreation, req.Topics = 8, true, []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("named")}}
		resp, err := seed[*kmsg.MetadataResponse](ctx, a, req)
		if err == nil && resp.Topics[0].ErrorCode != 5 { // it comes
			err = fmt.Errorf("code %d", resp.Topics[0].ErrorCode)
		}
		return err
	},
	"g: gives a topic partitions": func(ctx context.Context, a attacker) error {
		done, err := a.admin.UpdatePartitions(ctx, 2, "kept")
		return first(done, err, func(r kadm.CreatePartitionsResponse) error { return r.Err })
	},
	"h: changes a topic's configuration": func(ctx context.Context, a attacker) error {
		done, err := a.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kmsg.StringPtr("1000000")}}, "kept")
		if err == nil {
			err = done[0].Err
		}
		return err
	},
	"i: moves a group's offsets": func(ctx context.Context, a attacker) error {
		offsets := kadm.Offsets{}
		offsets.AddOffset("kept", 0, 1, -1)
		return a.admin.CommitAllOffsets(ctx, "team", offsets)
	},
	"j: deletes a group": func(ctx context.Context, a attacker) error {
		done, err := a.admin.DeleteGroups(ctx, "team")
		return first(done, err, func(r kadm.DeleteGroupResponse) error { return r.Err })
	},
	"k: makes a user": func(ctx context.Context, a attacker) error {
		done, err := a.admin.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "evil", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "evil"}})
		return first(done, err, func(r kadm.AlteredUserSCRAM) error { return r.Err })
	},
	"l: gives himself rights": func(ctx context.Context, a attacker) error {
		b := kadm.NewACLs().Topics("kept").Allow("User:mallory", "User:ANONYMOUS").AllowHosts().Operations(kadm.OpAll).ResourcePatternType(kadm.ACLPatternLiteral)
		done, err := a.admin.CreateACLs(ctx, b)
		if err == nil && len(done) > 0 {
			err = done[0].Err
		}
		return err
	},
	"m: takes rights": func(ctx context.Context, a attacker) error {
		b := kadm.NewACLs().AnyResource().Allow().Deny().AllowHosts().DenyHosts().Operations().ResourcePatternType(kadm.ACLPatternAny)
		done, err := a.admin.DeleteACLs(ctx, b)
		if err == nil && len(done) > 0 {
			err = done[0].Err
		}
		return err
	},
	"n: asks how nodes are": func(_ context.Context, a attacker) error { return a.cli("cluster", "status") },
	"o: has replicas compared": func(_ context.Context, a attacker) error {
		return a.cli("cluster", "verify", "kept")
	},
	"p: deletes records": func(ctx context.Context, a attacker) error {
		offsets := kadm.Offsets{}
		offsets.AddOffset("kept", 0, 1, -1)
		done, err := a.admin.DeleteRecords(ctx, offsets)
		if err == nil {
			r, _ := done.Lookup("kept", 0)
			err = r.Err
		}
		return err
	},
	"q: deletes a topic": func(ctx context.Context, a attacker) error {
		done, err := a.admin.DeleteTopics(ctx, "spare")
		return first(done, err, func(r kadm.DeleteTopicResponse) error { return r.Err })
	},
	"r: drains a node":    func(_ context.Context, a attacker) error { return a.cli("node", "drain", "n2", "--wait=false") },
	"t: takes a node out": func(_ context.Context, a attacker) error { return a.cli("node", "decommission", "n2", "--wait=false") },
	"s: changes replications": func(_ context.Context, a attacker) error {
		return a.cli("topic", "alter", "kept", "--replication-factor", "2")
	},
}

// security attacks mean nothing where nothing is authorized: there is nothing to take or give.
var onlyAuthorized = []string{"l: gives himself rights", "m: takes rights"}

func seed[R kmsg.Response](ctx context.Context, a attacker, req kmsg.Request) (resp R, err error) {
	got, err := a.cl.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return resp, err
	}
	return got.(R), nil
}

// scene makes a cluster with something in it.
func scene(t *testing.T, nodes int, args []string) *harness.Cluster {
	t.Helper()
	c := harness.New(t, harness.Options{Nodes: nodes, NoShim: true, NodeArgs: append([]string{"--auto-create-topics"}, args...)})
	super := atSocket(t, c.Node(1))
	for _, topic := range []string{"kept", "spare"} {
		operator(t, c, "topic", "create", topic, "--replication-factor", "3", "--partitions", "1")
	}
	cl := client(t, "local:1", nil, append(patient(), kgo.Dialer(dialSocket(c.Node(1))), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	for range 3 {
		must(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "kept", Value: []byte("top secret")}).FirstErr())
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset("kept", 0, 3, -1)
	must(t, super.CommitAllOffsets(t.Context(), "team", offsets))
	return c
}

// standing is what no attack may change.
func standing(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	super := atSocket(t, c.Node(1))
	var b strings.Builder
	topics, err := super.ListTopics(t.Context())
	must(t, err)
	for _, topic := range topics.Sorted() {
		ends, err := super.ListEndOffsets(t.Context(), topic.Topic)
		must(t, err)
		starts, err := super.ListStartOffsets(t.Context(), topic.Topic)
		must(t, err)
		// A busy machine may elect; an attack would tell of terms that no election reaches.
		ends.Each(func(o kadm.ListedOffset) {
			o.LeaderEpoch /= 1000
			ends[o.Topic][o.Partition] = o
		})
		configs, err := super.DescribeTopicConfigs(t.Context(), topic.Topic)
		must(t, err)
		fmt.Fprintf(&b, "%s: %d partitions, from %v to %v\n", topic.Topic, len(topic.Partitions), starts.Offsets(), ends)
		for _, config := range configs[0].Configs {
			if config.Source == kmsg.ConfigSourceDynamicTopicConfig {
				fmt.Fprintf(&b, "  %s=%s\n", config.Key, config.MaybeValue())
			}
		}
	}
	offsets, err := super.FetchOffsets(t.Context(), "team")
	must(t, err)
	fmt.Fprintf(&b, "team: %v\n", offsets.Offsets())
	users, err := super.DescribeUserSCRAMs(t.Context())
	must(t, err)
	fmt.Fprintf(&b, "users: %v\n", slices.Sorted(maps.Keys(users)))
	if acls, err := trimaran("", "acl", "list", "--brokers", socket(c.Node(1))); err == nil {
		b.WriteString(acls)
	}
	nodes, err := trimaran("", "node", "list", "--brokers", socket(c.Node(1)))
	must(t, err)
	for line := range strings.Lines(nodes) {
		if strings.Contains(line, "drain") || strings.Contains(line, "leaving") || strings.Contains(line, "decommission") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestClientPortAttacksAreRefused: whether a stranger comes, somebody with a wrong password or a
// user without rights, nothing is told and nothing changes.
func TestClientPortAttacksAreRefused(t *testing.T) {
	t.Parallel()
	c := scene(t, 3, locked)
	user(t, c, "mallory")
	user(t, c, "alice", "--topic kept --operation read", "--group team --operation read")
	before := standing(t, c)
	wrong := plain.Auth{User: "alice", Pass: "a guess"}.AsMechanism()
	for who, m := range map[string]struct {
		mechanism sasl.Mechanism
		flags     []string
		attacks   int
	}{
		"a stranger":            {nil, nil, len(attacks)},
		"a wrong password":      {wrong, nil, 2}, // more would be held back
		"a user without rights": {as("mallory"), []string{"--user", "mallory"}, len(attacks)},
	} {
		for _, n := range []*harness.Node{c.Node(1), c.Node(3)} {
			cl := client(t, n.Addr(), m.mechanism)
			a := attacker{cl, kadm.NewClient(cl), func(args ...string) error {
				out, err := trimaran("", append(append(args, "--brokers", n.Addr(), "--timeout", "3s"), m.flags...)...)
				if err != nil {
					err = errors.New(out)
				}
				return err
			}}
			for _, what := range slices.Sorted(maps.Keys(attacks))[:m.attacks] {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				if err := attacks[what](ctx, a); err == nil {
					t.Errorf("%s %s, at %s", who, what, n.ID)
				}
				cancel()
			}
			if n == c.Node(1) && m.mechanism != nil {
				continue
			}
			break // the second node is for users, whose rights come from the catalog
		}
	}
	if after := standing(t, c); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}

// TestClientPortAttacksHurtWhoIsOpen: each attack is noticed where nobody has to log in.
func TestClientPortAttacksHurtWhoIsOpen(t *testing.T) {
	t.Parallel()
	c := scene(t, 4, nil) // one can be done without
	cl := client(t, c.Node(1).Addr(), nil, patient()...)
	a := attacker{cl, kadm.NewClient(cl), func(args ...string) error {
		out, err := trimaran("", append(args, "--brokers", c.Node(1).Addr())...)
		if err != nil {
			err = errors.New(out)
		}
		return err
	}}
	before := standing(t, c)
	for _, what := range slices.Sorted(maps.Keys(attacks)) {
		if slices.Contains(onlyAuthorized, what) {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := attacks[what](ctx, a); err != nil {
			t.Errorf("%s: nothing happens: %v", what, err)
		}
		cancel()
	}
	if after := standing(t, c); after == before {
		t.Errorf("it is as it was: %s", after)
	}
}
