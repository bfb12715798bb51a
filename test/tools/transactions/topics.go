package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The topics. Messages of even hops are in ring0, of odd ones in ring1.
const (
	appendTopic = "append"
	ring0       = "ring0"
	ring1       = "ring1"
)

func topics() []string { return []string{appendTopic, ring0, ring1} }

func ringTopic(hop int) string {
	if hop%2 == 0 {
		return ring0
	}
	return ring1
}

// createTopics creates them, with as many replicas as there are nodes, three at most.
func (w *world) createTopics(ctx context.Context) error {
	cl, err := w.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	created, err := kadm.NewClient(cl).CreateTopics(ctx, int32(w.partitions), -1, nil, topics()...)
	if err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	for _, c := range created {
		if c.Err != nil {
			return fmt.Errorf("creating topic %s: %w", c.Topic, c.Err)
		}
		if c.Topic == appendTopic {
			w.topicID = c.ID
		}
	}
	return nil
}
