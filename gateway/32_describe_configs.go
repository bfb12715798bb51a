package gateway

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/listen"
)

// DescribeConfigs, versions 0 to 4.
//
// Kept: a topic shows every configuration that Kafka knows, what is set and what is
// default, its sources and synonyms, also those without effect here, whose
// documentation (from version 3) says what happens instead. No names, null or an empty
// list, mean all; names that nothing has are left out of the answer. The broker, by its
// id, shows what tools look for.
//
// A resource that stands in a request again, with whatever names, is answered once,
// as it was asked first: its description is a thousand times as long as the question.
//
// Differs: of the broker is read-only what decides what nodes do. The default of all
// brokers, an empty name, shows what was set for it, as in Kafka. The other kinds of resources
// have nothing set.

func handleDescribeConfigs(r *request) {
	req := r.body.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	answered := map[resource]bool{}
	for i := range req.Resources {
		asked := &req.Resources[i]
		if which := (resource{asked.ResourceType, asked.ResourceName}); answered[which] {
			continue
		} else {
			answered[which] = true
		}
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = asked.ResourceType, asked.ResourceName
		configs, err := r.describeConfigs(req, asked)
		if err != nil {
			out.ErrorCode, out.ErrorMessage = r.fail(err), kmsg.StringPtr(message(err))
		}
		out.Configs = configs
		resp.Resources = append(resp.Resources, out)
	}
	r.answerSized(resp, 4096*min(len(resp.Resources), 1024))
}

// resource is what configurations belong to, as requests name it.
type resource struct {
	typ  kmsg.ConfigResourceType
	name string
}

func (r *request) describeConfigs(req *kmsg.DescribeConfigsRequest, asked *kmsg.DescribeConfigsRequestResource) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	s := r.conn.server
	if err := r.mayConfigure(asked.ResourceType, asked.ResourceName); err != nil {
		return nil, err
	}
	wanted := func(name string) bool { return len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, name) }
	var list []kmsg.DescribeConfigsResponseResourceConfig
	switch asked.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		topic, ok := s.catalog.Topics().Lookup(asked.ResourceName)
		if !ok {
			return nil, s.unknownTopic()
		}
		for _, c := range fsm.Configs() {
			if !wanted(c.Name) {
				continue
			}
			value, source := s.topicConfig(topic, c)
			out := kmsg.NewDescribeConfigsResponseResourceConfig()
			out.Name, out.Value, out.Source, out.IsDefault = c.Name, &value, source, source == kmsg.ConfigSourceDefaultConfig
			out.ConfigType = configType(c.Type)
			if req.IncludeSynonyms {
				out.ConfigSynonyms = s.synonyms(topic, c)
			}
			if req.IncludeDocumentation && c.Note != "" {
				out.Documentation = kmsg.StringPtr(c.Note)
			}
			list = append(list, out)
		}
	case kmsg.ConfigResourceTypeBroker:
		if asked.ResourceName == "" {
			return s.describeAllBrokers(wanted, req.IncludeSynonyms), nil
		}
		broker, err := r.brokerNamed(asked.ResourceName)
		if err != nil {
			return nil, err
		}
		own := s.brokerConfigs(broker.id)
		// Its address is that of Metadata.
		at := "PLAINTEXT://" + broker.at.String()
		for _, name := range []string{"advertised.listeners", "listeners"} {
			own = append(own, brokerConfig{name: name, typ: kmsg.ConfigTypeString, value: at, given: s.cfg.Advertise != ""})
		}
		for _, c := range own {
			if !wanted(c.name) {
				continue
			}
			from := s.brokerSynonyms(c)
			out := kmsg.NewDescribeConfigsResponseResourceConfig()
			out.Name, out.Value, out.ReadOnly, out.ConfigType = c.name, from[0].Value, !c.alterable, c.typ
			out.Source = from[0].Source
			out.IsDefault = out.Source == kmsg.ConfigSourceDefaultConfig
			if req.IncludeSynonyms {
				out.ConfigSynonyms = from
			}
			if req.IncludeDocumentation && c.note != "" {
				out.Documentation = &c.note
			}
			list = append(list, out)
		}
	case kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig:
		return nil, nil
	default:
		return nil, fmt.Errorf("%w: resource type %d", errInvalidRequest, asked.ResourceType)
	}
	return list, nil
}

// describeAllBrokers shows what was set as the default of all brokers.
func (s *Server) describeAllBrokers(wanted func(string) bool, synonyms bool) (list []kmsg.DescribeConfigsResponseResourceConfig) {
	for _, c := range fsm.BrokerConfigs() {
		value, set := s.catalog.Topics().BrokerConfigs(true)[c.Name]
		if !set || !wanted(c.Name) {
			continue
		}
		out := kmsg.NewDescribeConfigsResponseResourceConfig()
		out.Name, out.Value, out.ConfigType, out.Source = c.Name, &value, configType(c.Type), kmsg.ConfigSourceDynamicDefaultBrokerConfig
		if synonyms {
			out.ConfigSynonyms = []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{{Name: c.Name, Value: &value, Source: out.Source}}
		}
		list = append(list, out)
	}
	return list
}

// brokerNamed gives a broker that is shown, by its name in a request.
func (r *request) brokerNamed(name string) (shownBroker, error) {
	var ids []int32
	id, err := strconv.ParseInt(name, 10, 32)
	for _, b := range r.brokers().list {
		if err == nil && b.id == int32(id) {
			return b, nil
		}
		ids = append(ids, b.id)
	}
	return shownBroker{}, fmt.Errorf("%w: there is no broker %s, only %v", errInvalidRequest, listen.Shown(name), ids)
}
