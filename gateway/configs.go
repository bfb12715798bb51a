package gateway

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
)

// brokerConfig is a configuration of the one broker that clients see. All are
// read-only: nodes are configured where they run, each on its own.
type brokerConfig struct {
	name  string
	typ   kmsg.ConfigType
	value string
	given bool // by whoever runs this node; else it is what the program does
}

// brokerConfigs gives what tools look for, sorted as they come: what this server
// does, and the defaults of topics under the names that they have at a broker.
func (s *Server) brokerConfigs() []brokerConfig {
	number := func(name string, v int64, given bool) brokerConfig {
		return brokerConfig{name, kmsg.ConfigTypeLong, strconv.FormatInt(v, 10), given}
	}
	list := []brokerConfig{
		number("broker.id", int64(BrokerID), false),
		{"auto.create.topics.enable", kmsg.ConfigTypeBoolean, strconv.FormatBool(s.cfg.AutoCreateTopics), true},
		{"delete.topic.enable", kmsg.ConfigTypeBoolean, "true", false},
		number("socket.request.max.bytes", int64(s.cfg.MaxRequestBytes), true),
		number("max.connections", int64(s.cfg.MaxConnections), true),
		number("producer.id.expiration.ms", fsm.ProducerExpiration, false),
	}
	if s.advertise != nil {
		list = append(list, brokerConfig{"advertised.listeners", kmsg.ConfigTypeString, "PLAINTEXT://" + s.cfg.Advertise, true})
	}
	for _, c := range fsm.Configs() {
		value, given := s.cfg.TopicDefaults[c.Name]
		if !given {
			value = c.Default
		}
		list = append(list, brokerConfig{c.BrokerName(), configType(c.Type), value, given})
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
