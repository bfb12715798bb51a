package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

func newTopic(name string, partitions int32, factor int16) kmsg.CreateTopicsRequestTopic {
	return kmsg.CreateTopicsRequestTopic{Topic: name, NumPartitions: partitions, ReplicationFactor: factor}
}

func TestCreateAndDeleteTopicsInEveryVersion(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	for version := range int16(5) {
		name := fmt.Sprint("topic-", version)
		create := &kmsg.CreateTopicsRequest{Version: version, TimeoutMillis: 1000, Topics: []kmsg.CreateTopicsRequestTopic{newTopic(name, 2, 3)}}
		if got := c.do(create).(*kmsg.CreateTopicsResponse).Topics[0]; got.ErrorCode != 0 || got.Topic != name || got.ErrorMessage != nil {
			t.Errorf("v%d: %+v", version, got)
		}
		got := c.do(create).(*kmsg.CreateTopicsResponse).Topics[0]
		if got.ErrorCode != kerr.TopicAlreadyExists.Code || (got.ErrorMessage == nil) != (version == 0) {
			t.Errorf("v%d, again: %+v", version, got)
		}
		remove := &kmsg.DeleteTopicsRequest{Version: min(version, 3), TimeoutMillis: 1000, TopicNames: []string{name, "nothing"}}
		deleted := c.do(remove).(*kmsg.DeleteTopicsResponse).Topics
		if len(deleted) != 2 || *deleted[0].Topic != name || deleted[0].ErrorCode != 0 || deleted[1].ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("v%d: %+v", version, deleted)
		}
	}
}

func TestCreateTopicsRefuses(t *testing.T) {
	f := newFake(t, "there")
	c := serve(t, f, nil).dial()
	value := "1000"
	config := func(name string, value *string) kmsg.CreateTopicsRequestTopic {
		topic := newTopic("t", 1, 1)
		topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: name, Value: value}}
		return topic
	}
	assigned := func(partitions int32, brokers ...[]int32) kmsg.CreateTopicsRequestTopic {
		topic := newTopic("t", partitions, -1)
		for p, b := range brokers {
			topic.ReplicaAssignment = append(topic.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(p), Replicas: b})
		}
		return topic
	}
	gap := assigned(-1, []int32{1}, []int32{1})
	gap.ReplicaAssignment[1].Partition = 2
	for name, test := range map[string]struct {
		topics []kmsg.CreateTopicsRequestTopic
		want   []*kerr.Error
	}{
		"a fine one":           {[]kmsg.CreateTopicsRequestTopic{newTopic("fine", 3, 3)}, []*kerr.Error{nil}},
		"defaults":             {[]kmsg.CreateTopicsRequestTopic{newTopic("defaults", -1, -1)}, []*kerr.Error{nil}},
		"a configuration":      {[]kmsg.CreateTopicsRequestTopic{config("retention.ms", &value)}, []*kerr.Error{nil}},
		"two of one name":      {[]kmsg.CreateTopicsRequestTopic{newTopic("t", 1, 1), newTopic("u", 1, 1), newTopic("t", 1, 1)}, []*kerr.Error{kerr.InvalidRequest, nil, kerr.InvalidRequest}},
		"names":                {[]kmsg.CreateTopicsRequestTopic{newTopic("", 1, 1), newTopic("a/b", 1, 1), newTopic("..", 1, 1)}, []*kerr.Error{kerr.InvalidTopicException, kerr.InvalidTopicException, kerr.InvalidTopicException}},
		"partitions":           {[]kmsg.CreateTopicsRequestTopic{newTopic("t", 0, 1), newTopic("u", -2, 1)}, []*kerr.Error{kerr.InvalidPartitions, kerr.InvalidPartitions}},
		"replication factors":  {[]kmsg.CreateTopicsRequestTopic{newTopic("t", 1, 0), newTopic("u", 1, -2), newTopic("v", 1, 4)}, []*kerr.Error{kerr.InvalidReplicationFactor, kerr.InvalidReplicationFactor, kerr.InvalidReplicationFactor}},
		"to the one broker":    {[]kmsg.CreateTopicsRequestTopic{assigned(-1, []int32{1}, []int32{1})}, []*kerr.Error{nil}},
		"to another broker":    {[]kmsg.CreateTopicsRequestTopic{assigned(-1, []int32{1}, []int32{2})}, []*kerr.Error{kerr.InvalidReplicaAssignment}},
		"to it twice":          {[]kmsg.CreateTopicsRequestTopic{assigned(-1, []int32{1, 1})}, []*kerr.Error{kerr.InvalidReplicaAssignment}},
		"to nobody":            {[]kmsg.CreateTopicsRequestTopic{assigned(-1, nil)}, []*kerr.Error{kerr.InvalidReplicaAssignment}},
		"with a gap":           {[]kmsg.CreateTopicsRequestTopic{gap}, []*kerr.Error{kerr.InvalidReplicaAssignment}},
		"and a count":          {[]kmsg.CreateTopicsRequestTopic{assigned(1, []int32{1})}, []*kerr.Error{kerr.InvalidRequest}},
		"no such config":       {[]kmsg.CreateTopicsRequestTopic{config("colour", &value)}, []*kerr.Error{kerr.InvalidConfig}},
		"a config without one": {[]kmsg.CreateTopicsRequestTopic{config("retention.ms", nil)}, []*kerr.Error{kerr.InvalidConfig}},
	} {
		// First as a question only, then in earnest: the answers are the same.
		for _, validateOnly := range []bool{true, false} {
			resp := c.do(&kmsg.CreateTopicsRequest{Version: 1, TimeoutMillis: 1000, Topics: test.topics, ValidateOnly: validateOnly}).(*kmsg.CreateTopicsResponse)
			for i, want := range test.want {
				got := resp.Topics[i]
				if kerr.TypedErrorForCode(got.ErrorCode) != want || (got.ErrorMessage == nil) != (want == nil) {
					t.Errorf("%s, validate only %v: %q is %v, want %v", name, validateOnly, got.Topic, kerr.TypedErrorForCode(got.ErrorCode), want)
				}
				if _, exists := f.Topics().Lookup(got.Topic); exists != (want == nil && !validateOnly) {
					t.Errorf("%s, validate only %v: %q exists: %v", name, validateOnly, got.Topic, exists)
				}
			}
		}
		for _, topic := range f.Topics().All() {
			if topic.Name != "there" {
				if err := f.DeleteTopic(t.Context(), topic.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// What takes longer than the client waits goes on without it.
func TestAdminTimeouts(t *testing.T) {
	f := newFake(t, "events")
	slow := func(ctx context.Context) error {
		select {
		case <-time.After(3 * time.Second):
			return nil
		case <-ctx.Done():
			return outcome.ErrTimeout
		}
	}
	f.create = func(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
		if err := slow(ctx); err != nil {
			return err
		}
		return f.doCreate(spec, validateOnly)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		for timeout, want := range map[int32]time.Duration{0: 0, -1: 0, 500: 500 * time.Millisecond, 10_000: 3 * time.Second} {
			name := fmt.Sprint("topic", timeout)
			began := time.Now()
			resp := c.do(&kmsg.CreateTopicsRequest{Version: 1, TimeoutMillis: timeout, Topics: []kmsg.CreateTopicsRequestTopic{newTopic(name, 1, 1)}}).(*kmsg.CreateTopicsResponse)
			if took := time.Since(began); took != want {
				t.Errorf("timeout %d: answered after %v", timeout, took)
			}
			if code := resp.Topics[0].ErrorCode; (code == 0) != (timeout == 10_000) || code != 0 && code != kerr.RequestTimedOut.Code {
				t.Errorf("timeout %d: code %d", timeout, code)
			}
			time.Sleep(10 * time.Second)
			if _, ok := f.Topics().Lookup(name); !ok {
				t.Errorf("timeout %d: was not created at all", timeout)
			}
		}
	})
}

func TestEveryServedAPIHasAHandler(t *testing.T) {
	for _, api := range kafkaproto.Served {
		if apis[api.Key].handle == nil {
			t.Errorf("%s is in the table and has no handler", api.Name)
		}
	}
	own := 5 // APIs
	if len(apis)-own != len(kafkaproto.Served) {
		t.Errorf("%d handlers, %d APIs in the table", len(apis)-own, len(kafkaproto.Served))
	}
}

func TestApiVersions3(t *testing.T) {
	c := serve(t, newFake(t), nil).dial()
	for name, want := range map[string]int16{"franz-go": 0, "": 42, "-x": 42, "a b": 42, "x.": 42, "a": 0} {
		req := &kmsg.ApiVersionsRequest{Version: 3, ClientSoftwareName: name, ClientSoftwareVersion: "1.0"}
		resp := c.do(req).(*kmsg.ApiVersionsResponse)
		if resp.ErrorCode != want || (want == 0) != (len(resp.ApiKeys) == len(kafkaproto.Served)) {
			t.Errorf("%q: %+v", name, resp)
		}
		for _, k := range resp.ApiKeys {
			if k.ApiKey == StatusKey {
				t.Error("the private API is listed")
			}
		}
	}
}

func TestStatus(t *testing.T) {
	f := newFake(t)
	g := serve(t, f, nil)
	ask := func(version int16, body ...byte) *client {
		c := g.dial()
		b := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
		b = binary.BigEndian.AppendUint16(b, StatusKey)
		b = binary.BigEndian.AppendUint16(b, uint16(version))
		b = append(b, 0, 0, 0, 7, 0xff, 0xff)
		c.send(append(b, body...))
		return c
	}
	answer, err := ask(0).frame()
	if err != nil || binary.BigEndian.Uint16(answer[8:]) != 0 || int(binary.BigEndian.Uint32(answer[10:])) != len(answer)-14 {
		t.Fatalf("%q, %v", answer, err)
	}
	var status admin.Status
	if err := json.Unmarshal(answer[14:], &status); err != nil || status.ClusterID != "fake" {
		t.Errorf("%+v, %v", status, err)
	}
	f.status = func(context.Context) (*admin.Status, error) { return nil, outcome.ErrShuttingDown }
	if answer, err = ask(0).frame(); err != nil || len(answer) != 14 || binary.BigEndian.Uint16(answer[8:]) != uint16(kerr.NotLeaderForPartition.Code) {
		t.Errorf("%x, %v", answer, err)
	}
	ask(1).closed()
	ask(0, 1).closed()
}

func TestReplicaCheck(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	ask := func(topic string, partition int32, from int64) []byte {
		b := append(head(ReplicaCheckKey, 0), 0, byte(len(topic)))
		b = append(b, topic...)
		b = binary.BigEndian.AppendUint32(b, uint32(partition))
		c := g.dial()
		c.send(raw(binary.BigEndian.AppendUint64(b, uint64(from))...))
		answer, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	answer := ask("events", 0, 3)
	var check admin.PartitionCheck
	if err := json.Unmarshal(answer[14:], &check); err != nil || binary.BigEndian.Uint16(answer[8:]) != 0 || check.From != 3 || check.End != 7 {
		t.Errorf("%q, %v", answer, err)
	}
	for _, answer := range [][]byte{ask("missing", 0, 0), ask("events", 1, 0), ask("events", -1, 0)} {
		if code := binary.BigEndian.Uint16(answer[8:]); code != uint16(kerr.UnknownTopicOrPartition.Code) || len(answer) != 14 {
			t.Errorf("%q", answer)
		}
	}
}

// An error's text may quote what a client says, and is cut to a line of characters.
func TestLongMessagesAreCutBetweenCharacters(t *testing.T) {
	for pad := range 4 {
		got := message(errors.New(strings.Repeat("x", pad) + strings.Repeat("\u20ac", 1000)))
		if !utf8.ValidString(got) || len(got) < 497 || len(got) > 500 {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}
