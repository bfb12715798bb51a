package oracle

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// create asks for topics in one request, which is only validated or carried out.
func create(validate bool, edits ...func(*kmsg.CreateTopicsRequestTopic)) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis, req.ValidateOnly = 5, 20_000, validate
	for _, e := range edits {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.NumPartitions, topic.ReplicationFactor = 1, 1
		e(&topic)
		req.Topics = append(req.Topics, topic)
	}
	return req
}

func named(name string) func(*kmsg.CreateTopicsRequestTopic) {
	return func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = name }
}

// with sets configurations, "name=value".
func with(name string, configs ...string) func(*kmsg.CreateTopicsRequestTopic) {
	return func(t *kmsg.CreateTopicsRequestTopic) {
		t.Topic = name
		for _, c := range configs {
			key, value, ok := strings.Cut(c, "=")
			config := kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value}
			if !ok {
				config.Value = nil
			}
			t.Configs = append(t.Configs, config)
		}
	}
}

// code writes down the error of each topic alone.
func (t *T) create(req *kmsg.CreateTopicsRequest) {
	for _, topic := range t.ask(req).(*kmsg.CreateTopicsResponse).Topics {
		t.Say("create %.40q: %s", t.aliased(topic.Topic), errorName(topic.ErrorCode))
	}
}

func (t *T) aliased(text string) string {
	if alias, ok := t.aliases[text]; ok {
		return alias
	}
	return text
}

// deleteTopic writes down what deleting a topic answers.
func (t *T) deleteTopic(name string) {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis, req.TopicNames = 4, 20_000, []string{name}
	for _, topic := range t.ask(req).(*kmsg.DeleteTopicsResponse).Topics {
		t.Say("delete %.40q: %s", t.aliased(*topic.Topic), errorName(topic.ErrorCode))
	}
}

var topicCases = []Case{
	{"names", func(t *T) {
		for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00b", strings.Repeat("x", 249), strings.Repeat("x", 250), "-", "_", "..."} {
			t.create(create(true, named(name)))
		}
	}},
	{"names of Kafka's own topics", func(t *T) {
		for _, name := range []string{"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata", "__remote_log_metadata", "__other", "@metadata"} {
			t.create(create(true, named(name)))
		}
	}},
	{"names that differ in a dot and an underscore", func(t *T) {
		name := t.Topic()
		collides := strings.ReplaceAll(name, "-", "_")
		t.Alias(collides, "with-underscores")
		t.create(create(false, named(collides)))
		dots := strings.ReplaceAll(name, "-", ".")
		t.Alias(dots, "with-dots")
		t.create(create(false, named(dots)))
	}},
	{"a name that is taken", func(t *T) {
		name := t.Topic()
		t.create(create(false, named(name)))
		t.create(create(true, named(name)))
	}},
	{"a name twice in a request", func(t *T) {
		name := t.Name()
		t.create(create(false, named(name), named(name)))
	}},
	{"counts", func(t *T) {
		for _, n := range []int32{0, -1, -2} {
			t.create(create(true, func(c *kmsg.CreateTopicsRequestTopic) { c.Topic, c.NumPartitions = "counts", n }))
		}
		for _, n := range []int16{0, -1, -2, 2} {
			t.create(create(true, func(c *kmsg.CreateTopicsRequestTopic) { c.Topic, c.ReplicationFactor = "counts", n }))
		}
	}},
	{"delete", func(t *T) {
		name := t.Topic()
		t.deleteTopic("no-such-topic")
		t.deleteTopic("no such topic")
		t.deleteTopic(name)
		t.deleteTopic(name)
	}},
	{"more partitions", func(t *T) {
		name := t.Topic()
		for _, n := range []int32{0, -1, 1, 2, 2} {
			req := kmsg.NewPtrCreatePartitionsRequest()
			req.TimeoutMillis = 20_000
			topic := kmsg.NewCreatePartitionsRequestTopic()
			topic.Topic, topic.Count = name, n
			req.Topics = append(req.Topics, topic)
			t.Say("%d partitions", n)
			t.Do(req)
		}
	}},
}
