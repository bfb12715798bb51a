package oracle

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// alter writes down what setting one configuration of a topic answers. A value that is
// left out is null.
func (t *T) alter(topic string, op kmsg.IncrementalAlterConfigOp, configs ...string) {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	for _, c := range configs {
		key, value, ok := strings.Cut(c, "=")
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op = key, op
		if ok {
			config.Value = &value
		}
		r.Configs = append(r.Configs, config)
	}
	req.Resources = append(req.Resources, r)
	t.Say("%v %s: %s", op, strings.Join(configs, ", "), errorName(t.ask(req).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode))
}

// describe writes down configurations of a topic, all if none is named.
func (t *T) describe(topic string, names ...string) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version = 1
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, names
	req.Resources = append(req.Resources, r)
	got := t.ask(req).(*kmsg.DescribeConfigsResponse).Resources[0]
	if got.ErrorCode != 0 {
		t.Say("describe: %s", errorName(got.ErrorCode))
	}
	slices.SortFunc(got.Configs, func(a, b kmsg.DescribeConfigsResponseResourceConfig) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range got.Configs {
		value := "null"
		if c.Value != nil {
			value = *c.Value
		}
		t.Say("%s=%s (%v)", c.Name, value, c.Source)
	}
}

const (
	setConfig      = kmsg.IncrementalAlterConfigOpSet
	deleteConfig   = kmsg.IncrementalAlterConfigOpDelete
	appendConfig   = kmsg.IncrementalAlterConfigOpAppend
	subtractConfig = kmsg.IncrementalAlterConfigOpSubtract
)

// values are cases of one configuration: values that Kafka may take or not.
func values(name string, all ...string) Case {
	return Case{"values of " + name, func(t *T) {
		topic := t.Topic()
		for _, v := range all {
			t.alter(topic, setConfig, name+"="+v)
		}
	}}
}

var configCases = []Case{
	{"all that a topic has", func(t *T) { t.describe(t.Topic()) }},
	values("cleanup.policy", "delete", "compact", "compact,delete", "", "none", "delete,delete", "DELETE"),
	values("compression.type", "producer", "uncompressed", "gzip", "zstd", "none", ""),
	values("compression.gzip.level", "-1", "1", "9", "0", "10"),
	values("compression.lz4.level", "1", "17", "0", "18"),
	values("compression.zstd.level", "22", "-131072", "23"),
	values("delete.retention.ms", "0", "-1", "x", "1.5", "9223372036854775807", "9223372036854775808"),
	values("file.delete.delay.ms", "0", "-1"),
	values("flush.messages", "1", "0", "-1"),
	values("flush.ms", "0", "-1"),
	values("index.interval.bytes", "0", "-1"),
	values("leader.replication.throttled.replicas", "*", "0:1", "0:1,1:1", "none", "x", ""),
	values("follower.replication.throttled.replicas", "*", "0:1", "x", ""),
	values("local.retention.bytes", "-2", "-1", "0", "-3"),
	values("local.retention.ms", "-2", "-1", "0", "-3"),
	values("max.compaction.lag.ms", "1", "0"),
	values("max.message.bytes", "0", "-1", "2147483647", "2147483648"),
	values("message.downconversion.enable", "true", "false"),
	values("message.format.version", "3.0", "2.8", "x"),
	values("message.timestamp.after.max.ms", "0", "-1", "9223372036854775807"),
	values("message.timestamp.before.max.ms", "0", "-1"),
	values("message.timestamp.difference.max.ms", "0", "-1"),
	values("message.timestamp.type", "CreateTime", "LogAppendTime", "createtime", ""),
	values("min.cleanable.dirty.ratio", "0", "1", "0.5", "1.1", "-0.1", "NaN"),
	values("min.compaction.lag.ms", "0", "-1"),
	values("min.insync.replicas", "1", "0", "5"),
	values("preallocate", "true", "false", "TRUE", "yes", ""),
	values("remote.storage.enable", "false", "true"),
	values("remote.log.copy.disable", "false", "true"),
	values("remote.log.delete.on.disable", "false", "true"),
	values("retention.bytes", "-1", "0", "-2"),
	values("retention.ms", "-1", "0", "-2"),
	values("segment.bytes", "1048576", "1048575", "14", "13", "2147483647"),
	values("segment.index.bytes", "4", "3"),
	values("segment.jitter.ms", "0", "-1"),
	values("segment.ms", "1", "0"),
	values("unclean.leader.election.enable", "false", "true"),
	values("no.such.config", "x"),
	{"compaction lags that exclude each other", func(t *T) {
		topic := t.Topic()
		t.alter(topic, setConfig, "min.compaction.lag.ms=100", "max.compaction.lag.ms=50")
	}},
	{"lists", func(t *T) {
		topic := t.Topic()
		t.alter(topic, appendConfig, "cleanup.policy=compact")
		t.describe(topic, "cleanup.policy")
		t.alter(topic, appendConfig, "cleanup.policy=compact")
		t.describe(topic, "cleanup.policy")
		t.alter(topic, subtractConfig, "cleanup.policy=delete")
		t.describe(topic, "cleanup.policy")
		t.alter(topic, subtractConfig, "cleanup.policy=delete")
		t.alter(topic, subtractConfig, "cleanup.policy=compact")
		t.describe(topic, "cleanup.policy")
		t.alter(topic, appendConfig, "retention.ms=5")
		t.alter(topic, subtractConfig, "retention.ms=5")
	}},
	{"nulls, unknown names and deletions", func(t *T) {
		topic := t.Topic()
		t.alter(topic, setConfig, "retention.ms")
		t.alter(topic, deleteConfig, "retention.ms")
		t.alter(topic, deleteConfig, "no.such.config")
		t.alter(topic, setConfig, "retention.ms=5", "retention.ms=6")
		t.alter(topic, 9, "retention.ms=5")
		t.alter("no-such-topic", setConfig, "retention.ms=5")
	}},
	{"configurations at creation", func(t *T) {
		for _, c := range []string{"retention.ms=5", "retention.ms=x", "retention.ms", "no.such.config=1", "segment.bytes=14", "remote.storage.enable=true", "cleanup.policy="} {
			t.Say("%s", c)
			t.create(create(true, with("at-creation", c)))
		}
	}},
}
