package gateway

import (
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
)

// brokerConfig is a configuration of the one broker that clients see. Most are
// read-only: nodes are configured where they run, each on its own.
type brokerConfig struct {
	name  string
	typ   kmsg.ConfigType
	value string
	given bool // by whoever runs this node; else it is what the program does

	alterable bool   // by clients
	note      string // what it does instead of what its name says
}

// brokerConfigs gives what tools look for, sorted as they come: what this server
// does, and the defaults of topics under the names that they have at a broker.
func (s *Server) brokerConfigs(id int32) []brokerConfig {
	number := func(name string, v int64, given bool) brokerConfig {
		return brokerConfig{name: name, typ: kmsg.ConfigTypeLong, value: strconv.FormatInt(v, 10), given: given}
	}
	list := []brokerConfig{
		number("broker.id", int64(id), false),
		number("node.id", int64(id), false),
		{name: "log.dirs", typ: kmsg.ConfigTypeString, value: logDir},
		{name: "log.cleaner.enable", typ: kmsg.ConfigTypeBoolean, value: "false"},
		number("offsets.topic.num.partitions", coordinator.Shards, false),
		{name: "auto.create.topics.enable", typ: kmsg.ConfigTypeBoolean, value: strconv.FormatBool(s.cfg.AutoCreateTopics), given: true},
		{name: "delete.topic.enable", typ: kmsg.ConfigTypeBoolean, value: "true"},
		number("socket.request.max.bytes", int64(s.cfg.MaxRequestBytes), true),
		number("max.connections", int64(s.cfg.MaxConnections), true),
		number("producer.id.expiration.ms", fsm.ProducerExpiration, false),
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.BrokerConfigs)) {
		list = append(list, brokerConfig{name: name, typ: kmsg.ConfigTypeInt, value: s.cfg.BrokerConfigs[name], given: true})
	}
	for _, c := range fsm.BrokerConfigs() {
		list = append(list, brokerConfig{name: c.Name, typ: configType(c.Type), value: c.Default, alterable: true, note: c.Note})
	}
	for _, c := range fsm.Configs() {
		value, given := s.cfg.TopicDefaults[c.Name]
		if !given {
			value = c.Default
		}
		list = append(list, brokerConfig{name: c.BrokerName(), typ: configType(c.Type), value: value, given: given, note: c.Note})
	}
	return list
}

func configType(t fsm.ConfigType) kmsg.ConfigType {
	switch t {
	case fsm.ConfigInt:
		return kmsg.ConfigTypeInt
	case fsm.ConfigLong:
		return kmsg.ConfigTypeLong
	case fsm.ConfigDouble:
		return kmsg.ConfigTypeDouble
	case fsm.ConfigBoolean:
		return kmsg.ConfigTypeBoolean
	case fsm.ConfigList:
		return kmsg.ConfigTypeList
	}
	return kmsg.ConfigTypeString
}

// topicConfig is the value of a topic's configuration and where it comes from.
func (s *Server) topicConfig(topic *fsm.Topic, c fsm.Config) (value string, source kmsg.ConfigSource) {
	if _, own := topic.Configs[c.Name]; own {
		return topic.Config(c.Name), kmsg.ConfigSourceDynamicTopicConfig
	}
	if value, given := s.cfg.TopicDefaults[c.Name]; given {
		return value, kmsg.ConfigSourceStaticBrokerConfig
	}
	return c.Default, kmsg.ConfigSourceDefaultConfig
}

// brokerSynonyms gives where the value of a broker's configuration comes from, the place that
// counts first. It has at least one element.
func (s *Server) brokerSynonyms(c brokerConfig) []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym {
	var list []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym
	add := func(value string, source kmsg.ConfigSource) {
		list = append(list, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: c.name, Value: &value, Source: source})
	}
	topics := s.catalog.Topics()
	if value, set := topics.BrokerConfigs(false)[c.name]; set {
		add(value, kmsg.ConfigSourceDynamicBrokerConfig)
	}
	if value, set := topics.BrokerConfigs(true)[c.name]; set {
		add(value, kmsg.ConfigSourceDynamicDefaultBrokerConfig)
	}
	if c.given {
		add(c.value, kmsg.ConfigSourceStaticBrokerConfig)
	} else {
		add(c.value, kmsg.ConfigSourceDefaultConfig)
	}
	return list
}

// synonyms gives where the value could come from, the one that counts first.
func (s *Server) synonyms(topic *fsm.Topic, c fsm.Config) []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym {
	var list []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym
	add := func(name, value string, source kmsg.ConfigSource) {
		list = append(list, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: name, Value: &value, Source: source})
	}
	if _, own := topic.Configs[c.Name]; own {
		add(c.Name, topic.Config(c.Name), kmsg.ConfigSourceDynamicTopicConfig)
	}
	if value, given := s.cfg.TopicDefaults[c.Name]; given {
		add(c.BrokerName(), value, kmsg.ConfigSourceStaticBrokerConfig)
	}
	add(c.BrokerName(), c.Default, kmsg.ConfigSourceDefaultConfig)
	return list
}
