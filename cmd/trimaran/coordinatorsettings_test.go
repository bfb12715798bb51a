package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/trimaran-io/trimaran/admin"
)

func TestCoordinatorSettings(t *testing.T) {
	parse := func(env map[string]string, args ...string) (coordinatorSettings, error) {
		cmd, err := loaded(t, env, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		o, err := serveOptions(cmd)
		return o.coordinators, err
	}
	if s, err := parse(nil); err != nil || s != defaultCoordinatorSettings() || s.groups.InitialRebalanceDelay != 3*time.Second || s.transactions.MaxTimeout != 15*time.Minute {
		t.Errorf("nothing given: %+v, %v", s, err)
	}
	s, err := parse(map[string]string{"TRIMARAN_GROUP_MAX_SIZE": "7"}, "--group-initial-rebalance-delay-ms", "0",
		"--group-min-session-timeout-ms", "100", "--group-max-session-timeout-ms", "200", "--offsets-retention-minutes", "5",
		"--transaction-max-timeout-ms", "60000", "--transactional-id-expiration-ms", "3600000")
	want := defaultCoordinatorSettings()
	want.transactions.MaxTimeout, want.transactions.IDExpiration = time.Minute, time.Hour
	want.groups.MaxGroupSize, want.groups.InitialRebalanceDelay, want.groups.OffsetsRetention = 7, 0, 5*time.Minute
	want.groups.MinSessionTimeout, want.groups.MaxSessionTimeout = 100*time.Millisecond, 200*time.Millisecond
	if err != nil || s != want {
		t.Errorf("all given: %+v, %v", s, err)
	}
	for _, bad := range [][]string{
		{"--group-initial-rebalance-delay-ms", "-1"}, {"--group-max-size", "0"}, {"--offsets-retention-minutes", "0"},
		{"--group-min-session-timeout-ms", "0"}, {"--transaction-max-timeout-ms", "0"}, {"--transactional-id-expiration-ms", "0"}, {"--group-max-session-timeout-ms", "2147483648"},
		{"--group-min-session-timeout-ms", "2000", "--group-max-session-timeout-ms", "1000"},
	} {
		if s, err := parse(nil, bad...); err == nil {
			t.Errorf("%v is taken as %+v", bad, s)
		}
	}
}

func TestResetNeedsTheOffsetsOfAllPartitions(t *testing.T) {
	listed := kadm.ListedOffsets{"events": {0: {Topic: "events", Offset: 7}, 1: {Topic: "events", Partition: 1, Offset: -1}}}
	if _, err := whole(listed, nil); err != nil {
		t.Error(err)
	}
	listed["events"][1] = kadm.ListedOffset{Topic: "events", Partition: 1, Offset: -1, Err: kerr.NotLeaderForPartition}
	if _, err := whole(listed, nil); !errors.Is(err, kerr.NotLeaderForPartition) {
		t.Errorf("a partition without a leader: %v", err)
	}
}

func TestStatusShowsTheShardsInALine(t *testing.T) {
	up := []admin.ReplicaStatus{{Node: "n1", Role: "leader"}, {Node: "n2", Role: "follower"}}
	status := &admin.Status{ClusterID: "c", Nodes: []admin.NodeStatus{{ID: "n1"}}, GroupShards: []admin.PartitionStatus{
		{Leader: "n2", Replicas: up}, {Leader: "n1", Replicas: up}, {Leader: "n2", Replicas: up},
		{Replicas: []admin.ReplicaStatus{{Node: "n1", Role: "damaged"}, {Node: "n2", Role: "offline"}}},
	}}
	var out bytes.Buffer
	if err := showStatus(&out, status); err != nil {
		t.Fatal(err)
	}
	want := "\nConsumer groups: 4 shards, n1 leads 1, n2 leads 2, 1 WITHOUT A LEADER, 1 replicas offline, 1 replicas damaged\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("%q is not in\n%s", want, out.String())
	}
	status.GroupShards = nil
	out.Reset()
	if err := showStatus(&out, status); err != nil || strings.Contains(out.String(), "Consumer groups") {
		t.Errorf("without shards: %v\n%s", err, out.String())
	}
}
