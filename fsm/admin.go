package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/outcome"
)

// This file holds the changes of a topic that is there: its configuration and the
// number of its partitions.

// AlterConfigs changes what was set for a topic. A command that arrives twice
// changes the topic once, unless another came in between.
type AlterConfigs struct {
	Topic TopicID `json:"topic"`
	// Replace begins with nothing set; else the changes are made to what is set.
	Replace bool           `json:"replace,omitempty"`
	Changes []ConfigChange `json:"changes,omitempty"`
}

// ConfigOp is what a ConfigChange does, in the words of KIP-339.
type ConfigOp string

// The operations. Append and Subtract are for lists; Subtract of what is not in the
// list and Append of what is change nothing.
const (
	SetConfig      ConfigOp = "set"
	DeleteConfig   ConfigOp = "delete" // back to the default
	AppendConfig   ConfigOp = "append"
	SubtractConfig ConfigOp = "subtract"
)

// ConfigChange changes one configuration.
type ConfigChange struct {
	Name  string   `json:"name"`
	Op    ConfigOp `json:"op"`
	Value string   `json:"value,omitempty"`
}

// Apply gives what is set after the changes to old, which stays what it is. The
// error is ErrInvalidConfig. As in Kafka, a list that was not set is changed
// beginning with its default.
func (a *AlterConfigs) Apply(old map[string]string) (map[string]string, error) {
	return applyChanges(a.Replace, a.Changes, old, func(name string) (Config, error) {
		c, known := LookupConfig(name)
		if !known {
			return c, fmt.Errorf("%w: no configuration is named %q", outcome.ErrInvalidConfig, name)
		}
		return c, nil
	})
}

// applyChanges gives what is set after the changes to old. lookup finds a configuration in the
// table of its kind of resource.
func applyChanges(replace bool, changes []ConfigChange, old map[string]string, lookup func(name string) (Config, error)) (map[string]string, error) {
	next := map[string]string{}
	if !replace {
		maps.Copy(next, old)
	}
	for _, change := range changes {
		c, err := lookup(change.Name)
		if err != nil {
			return nil, err
		}
		switch change.Op {
		case SetConfig:
			next[c.Name] = change.Value
		case DeleteConfig:
			delete(next, c.Name)
			continue
		case AppendConfig, SubtractConfig:
			if c.Type != ConfigList {
				return nil, fmt.Errorf("%w: %s is no list that could be changed in part", outcome.ErrInvalidConfig, c.Name)
			}
			present, ok := next[c.Name]
			if !ok {
				present = c.Default
			}
			next[c.Name] = changeList(present, change.Op, change.Value)
		default:
			return nil, fmt.Errorf("%w: %s: operation %q", outcome.ErrInvalidConfig, c.Name, change.Op)
		}
		if err := c.Check(next[c.Name]); err != nil {
			return nil, err
		}
	}
	if len(next) == 0 {
		return nil, nil
	}
	return next, nil
}

// changeList adds elements to a list or takes them out.
func changeList(present string, op ConfigOp, value string) string {
	elements := splitList(present)
	for _, e := range splitList(value) {
		at := slices.Index(elements, e)
		switch {
		case op == AppendConfig && at < 0:
			elements = append(elements, e)
		case op == SubtractConfig && at >= 0:
			elements = slices.Delete(elements, at, at+1)
		}
	}
	return strings.Join(elements, ",")
}

func splitList(list string) (elements []string) {
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" {
			elements = append(elements, e)
		}
	}
	return elements
}

// CreatePartitions gives a topic more partitions, which the proposer has placed. A
// command that arrives twice creates once.
type CreatePartitions struct {
	Topic TopicID `json:"topic"`
	// From is the number of partitions that the topic has now.
	From       int         `json:"from"`
	Partitions []Partition `json:"partitions"` // to come behind those
}

// CheckCreatePartitions reports whether the topic can be given these partitions now.
// It is what Catalog.Apply asks. done: it has them already. Errors are
// ErrUnknownTopicOrPartition, ErrInvalidPartitions and ErrInvalidAssignment.
func (t *Topics) CheckCreatePartitions(c *CreatePartitions) (done bool, err error) {
	topic, ok := t.byID[c.Topic]
	if !ok {
		return false, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, c.Topic)
	}
	has, want := len(topic.Partitions), c.From+len(c.Partitions)
	if c.From < 1 || len(c.Partitions) < 1 || want > MaxPartitions {
		return false, fmt.Errorf("%w: %d and %d more, want at most %d", outcome.ErrInvalidPartitions, c.From, len(c.Partitions), MaxPartitions)
	}
	same := func(a, b Partition) bool { return slices.Equal(a.Bootstrap, b.Bootstrap) }
	if has == want && slices.EqualFunc(topic.Partitions[c.From:], c.Partitions, same) {
		return true, nil
	}
	if has != c.From {
		return false, fmt.Errorf("%w: topic %s has %d partitions", outcome.ErrInvalidPartitions, topic.Name, has)
	}
	replicas := make([][]NodeID, len(c.Partitions))
	for i, p := range c.Partitions {
		if !slices.Equal(p.Replicas, p.Bootstrap) {
			return false, fmt.Errorf("%w: partition %d: its group is formed with %q and its replicas are %q", outcome.ErrInvalidAssignment, has+i, p.Bootstrap, p.Replicas)
		}
		if err := p.checkNoVoters(); err != nil {
			return false, err
		}
		replicas[i] = p.Replicas
	}
	return false, CheckAssignment(replicas, topic.ReplicationFactor, t.isRegistered)
}

func (c *Catalog) createPartitions(create *CreatePartitions) (*Topics, error) {
	done, err := c.view.CheckCreatePartitions(create)
	if err != nil || done {
		return c.view, err
	}
	topic := *c.view.byID[create.Topic]
	topic.Partitions = append(slices.Clone(topic.Partitions), c.view.toForm(create.Partitions)...)
	return c.view.withTopic(&topic), nil
}

func (c *Catalog) alterConfigs(alter *AlterConfigs) (*Topics, error) {
	old, ok := c.view.byID[alter.Topic]
	if !ok {
		return nil, fmt.Errorf("%w: no topic has id %s", outcome.ErrUnknownTopicOrPartition, alter.Topic)
	}
	configs, err := alter.Apply(old.Configs)
	if err != nil {
		return nil, err
	}
	if c.view.FeatureLevel() < 3 {
		// Programs of that level look at a list behind each change of it.
		for n := range alter.Changes {
			step := AlterConfigs{Replace: alter.Replace, Changes: alter.Changes[:n+1]}
			now, err := step.Apply(old.Configs)
			if err == nil {
				err = c.view.checkLists(now)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if maps.Equal(configs, old.Configs) {
		return c.view, nil
	}
	topic := *old
	topic.Configs = configs
	return c.view.withTopic(&topic), nil
}
