package gateway

import (
	"context"
	"encoding/binary"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security/acl"
)

// What implements Changes.

func (f *fakeCluster) CreateTopic(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
	if f.create != nil {
		return f.create(ctx, spec, validateOnly)
	}
	return f.doCreate(spec, validateOnly)
}

func (f *fakeCluster) doCreate(spec fsm.TopicSpec, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic := fsm.Topic{Name: spec.Name, ReplicationFactor: int(spec.ReplicationFactor), Configs: spec.Configs}
	binary.BigEndian.PutUint64(topic.ID[8:], uint64(f.index))
	if topic.ReplicationFactor == -1 {
		topic.ReplicationFactor = 3
	}
	if spec.Partitions == -1 {
		spec.Partitions = 2
	}
	nodes := []fsm.NodeID{"n1", "n2", "n3"}
	for range spec.Partitions {
		replicas := nodes[:min(topic.ReplicationFactor, 3)]
		topic.Partitions = append(topic.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if err := f.catalog.View().CheckCreate(&topic); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{CreateTopic: &fsm.CreateTopic{Topic: topic}})
}

func (f *fakeCluster) DeleteTopic(ctx context.Context, name string) error {
	if f.remove != nil {
		return f.remove(ctx, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{Name: name}})
}

func (f *fakeCluster) DeleteTopicByID(ctx context.Context, id fsm.TopicID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{DeleteTopic: &fsm.DeleteTopic{ID: id}})
}

func (f *fakeCluster) AlterConfigs(ctx context.Context, alter fsm.AlterConfigs, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic, _ := f.catalog.View().ByID(alter.Topic)
	if _, err := alter.Apply(topic.Configs); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{AlterConfigs: &alter})
}

func (f *fakeCluster) AlterBrokerConfigs(ctx context.Context, alter fsm.AlterBrokerConfigs, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := alter.Apply(f.catalog.View().BrokerConfigs(alter.All)); err != nil || validateOnly {
		return err
	}
	return f.apply(fsm.CatalogCommand{AlterBrokerConfigs: &alter})
}

func (f *fakeCluster) AlterACLs(_ context.Context, add []acl.Binding, remove []acl.Filter) ([][]acl.Binding, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alter := &fsm.AlterACLs{Add: add}
	removed := make([][]acl.Binding, len(remove))
	for i, filter := range remove {
		removed[i] = f.catalog.View().Security().ACLs().Select(filter)
		alter.Remove = append(alter.Remove, removed[i]...)
	}
	return removed, f.apply(fsm.CatalogCommand{AlterACLs: alter})
}

func (f *fakeCluster) AlterCredentials(_ context.Context, alter fsm.AlterCredentials) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{AlterCredentials: &alter})
}

func (f *fakeCluster) AlterTokens(_ context.Context, alter fsm.AlterTokens) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.apply(fsm.CatalogCommand{AlterTokens: &alter})
}

// CatalogChanged implements Catalog.
func (f *fakeCluster) CatalogChanged() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeCluster) CreatePartitions(ctx context.Context, id fsm.TopicID, count int, validateOnly bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic, _ := f.catalog.View().ByID(id)
	create := &fsm.CreatePartitions{Topic: id, From: len(topic.Partitions)}
	for range count - len(topic.Partitions) {
		replicas := topic.Partitions[0].Replicas
		create.Partitions = append(create.Partitions, fsm.Partition{Replicas: replicas, Bootstrap: replicas})
	}
	if validateOnly {
		_, err := f.catalog.View().CheckCreatePartitions(create)
		return err
	}
	return f.apply(fsm.CatalogCommand{CreatePartitions: create})
}
