package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// parseTopics reads what --topics takes: name[:partitions[:replication factor]],
// where a number left out is the cluster's default.
func parseTopics(given []string) ([]fsm.TopicSpec, error) {
	var specs []fsm.TopicSpec
	seen := map[string]bool{}
	for _, s := range given {
		parts := strings.Split(strings.TrimSpace(s), ":")
		spec := fsm.TopicSpec{Name: parts[0], Partitions: -1, ReplicationFactor: -1}
		if len(parts) > 3 {
			return nil, usagef("--topics %q: want name:partitions or name:partitions:replication-factor", s)
		}
		if err := kafkaproto.CheckNewTopicName(spec.Name); err != nil {
			return nil, usagef("--topics %q: %v", s, err)
		}
		if seen[spec.Name] {
			return nil, usagef("--topics: %s is there twice", spec.Name)
		}
		seen[spec.Name] = true
		if len(parts) > 1 {
			n, err := positive(parts[1], 32)
			if err != nil {
				return nil, usagef("--topics %q: partitions: %v", s, err)
			}
			spec.Partitions = int32(n)
		}
		if len(parts) > 2 {
			n, err := positive(parts[2], 16)
			if err != nil {
				return nil, usagef("--topics %q: replication factor: %v", s, err)
			}
			spec.ReplicationFactor = int16(n)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

func positive(s string, bits int) (int64, error) {
	n, err := strconv.ParseInt(s, 10, bits)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", s, int64(1)<<(bits-1)-1)
	}
	return n, nil
}
