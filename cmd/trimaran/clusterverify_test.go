package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

func TestClusterVerify(t *testing.T) {
	_, addr, _ := oneNode(t)
	command(t, 0, "one\ntwo\n", "produce", "greetings", "--brokers", addr)
	out, _ := command(t, 0, "", "cluster", "verify", "greetings", "--brokers", addr)
	if !strings.Contains(out, "greetings-0  nothing to compare with  offsets 0 to 2, ") || !strings.Contains(out, "on n1") {
		t.Errorf("%q", out)
	}
	out, _ = command(t, 0, "", "cluster", "verify", "greetings", "--brokers", addr, "--json")
	var all []verifiedPartition
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 || all[0].To != 2 || all[0].Replicas[0].Bytes == 0 {
		t.Errorf("%v: %s", err, out)
	}
	if _, text := command(t, 1, "", "cluster", "verify", "nothing", "--brokers", addr); !strings.Contains(text, "there is none of that name") {
		t.Errorf("%q", text)
	}
	if out, _ := command(t, 0, "", "cluster", "status", "--brokers", addr); !strings.Contains(out, "DISK FREE") || !strings.Contains(out, "iB (") {
		t.Errorf("%q", out)
	}
}

func TestVerifiedPartitionText(t *testing.T) {
	replicas := func(hashes ...string) (all []admin.ReplicaCheck) {
		for i, hash := range hashes {
			r := admin.ReplicaCheck{Node: fsm.NodeID([]string{"n1", "n2", "n3"}[i]), State: "checked", Bytes: 1 << 20, Hash: strings.Repeat(hash, 64)}
			if hash == "" {
				r.State, r.Bytes = "copying", 0
			}
			all = append(all, r)
		}
		return all
	}
	same := &verifiedPartition{Topic: "a", From: -1, Same: true}
	same.add(&admin.PartitionCheck{From: 3, To: 10, End: 20, DiffersAt: -1, Replicas: replicas("1", "1", "")})
	same.add(&admin.PartitionCheck{From: 10, To: 20, End: 20, DiffersAt: -1, Replicas: replicas("2", "2", "")})
	if got, want := same.text(), "a-0  same  offsets 3 to 20, 2 MiB, on n1, n2; n3 is copying\n"; got != want || !same.good() {
		t.Errorf("got %q, want %q", got, want)
	}
	differs := &verifiedPartition{Topic: "a", From: -1, Same: true}
	differs.add(&admin.PartitionCheck{From: 0, To: 10, End: 10, DiffersAt: 7, DiffersTo: 8, Replicas: replicas("1", "1", "2")})
	want := "a-0  DIFFERENT  offsets 0 to 10, 1 MiB, on n1, n2, n3\n  from offset 7 to 8:  n1 111111111111  n2 111111111111  n3 222222222222\n"
	if got := differs.text(); got != want || differs.good() {
		t.Errorf("got %q, want %q", got, want)
	}
	damaged := &verifiedPartition{Topic: "a", From: -1, Same: true}
	check := &admin.PartitionCheck{To: 10, End: 10, DiffersAt: -1, Replicas: replicas("1", "1", "")}
	check.Replicas[2].State, check.Replicas[2].Error = "damaged", "a byte"
	if damaged.add(check); damaged.good() || !strings.HasSuffix(damaged.text(), "; n3 is damaged\n  n3: a byte\n") {
		t.Errorf("%q", damaged.text())
	}
}

func TestStatusShowsCopiesAndDisks(t *testing.T) {
	status := &admin.Status{
		ClusterID: "c",
		Nodes: []admin.NodeStatus{
			{ID: "n1", Alive: true, DiskFree: 50 << 30, DiskTotal: 100 << 30},
			{ID: "n2", Alive: true, DiskFree: 1 << 20, DiskTotal: 100 << 20, DiskFull: true},
			{ID: "n3"},
		},
		Topics: []admin.TopicStatus{{Name: "events", Partitions: []admin.PartitionStatus{{Leader: "n1", HighWatermark: 9, Replicas: []admin.ReplicaStatus{
			{Node: "n1", Role: "leader", Applied: 9},
			{Node: "n2", Role: "copying", Lag: 9, CatchUp: &admin.CatchUpStatus{Bytes: 25 << 20, Total: 100 << 20, BytesPerSecond: 5 << 20}},
			{Node: "n3", Role: "damaged", Lag: 9, Error: "damaged log: entry 3"},
		}}}}},
	}
	var out bytes.Buffer
	if err := showStatus(&out, status); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"50 GiB (50%)", "1 MiB (1%), FULL: takes no records", "n1, n2 (copying, 25%), n3 (damaged)",
		"COPYING  PARTITION  NODE  COPIED  OF ABOUT  DONE  RATE     LEFT\nevents   0          n2    25 MiB  100 MiB   25%   5 MiB/s  15s\n",
		"DAMAGED  PARTITION  NODE  WHY\nevents   0          n3    damaged log: entry 3\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestStatusTellsOfCompaction(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	of := func(ratio float64, waits bool) []admin.ReplicaStatus {
		return []admin.ReplicaStatus{{Compaction: &admin.ReplicaCompaction{DirtyRatio: ratio, Waits: waits}}, {Role: "offline"}}
	}
	status := &admin.Status{Topics: []admin.TopicStatus{
		{Name: "events", Partitions: []admin.PartitionStatus{{Replicas: []admin.ReplicaStatus{{}}}}},
		{Name: "accounts", Partitions: []admin.PartitionStatus{{Replicas: of(0.125, false)}, {Partition: 1, Replicas: of(0.4, true)}}},
	}}
	if got, want := compactionText(status, now), "Compaction: of 2 partitions, the dirtiest is accounts-1 (40%), 1 replicas have to follow; no round yet"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	status.Nodes = []admin.NodeStatus{
		{ID: "n1", Compaction: &admin.NodeCompaction{LastMs: now.UnixMilli() - 90_000, Saved: 1 << 20}},
		{ID: "n2", Compaction: &admin.NodeCompaction{LastMs: now.UnixMilli() - 5_000, Saved: 3 << 20}},
		{ID: "n3"},
	}
	if got, want := compactionText(status, now), "1 replicas have to follow; last round 5s ago by n2; 4 MiB saved since the nodes were started"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := compactionText(&admin.Status{Topics: status.Topics[:1]}, now); got != "" {
		t.Errorf("where nothing is compacted: %q", got)
	}
}
